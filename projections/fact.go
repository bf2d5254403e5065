package projections

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

// errPoison says that an event cannot be made into rows, whoever tries and however
// often.
var errPoison = errors.New("event cannot be projected")

// fact is an event with everything that its rows need. Making one is all that can
// fail about an event: appending a fact to a block cannot.
type fact struct {
	raw      eventlog.Raw
	rec      domain.Recorded
	uses     []domain.Use
	activity domain.Activity
	// hasActivity says that the event is an activity record itself.
	hasActivity bool
	// key is the state after a key event, finding the one after a finding event;
	// text is it as JSON. nil and empty for other events.
	key     *domain.KeyState
	finding *domain.Finding
	text    string
	// carriedFrom is the generation that the uses are of, where the event is a stand-in.
	carriedFrom string
	// poison is why the event has no rows, nil if it may have.
	poison error
}

// decoder makes facts. It is not safe for concurrent use.
type decoder struct {
	read    Decode
	batches *usagebatch.Codec
}

// Decode reads a stored event; nil is [eventlog.Decode]. Two programs that can read
// different events have different ones.
type Decode func(eventlog.Raw) (domain.Recorded, error)

func newDecoder(read Decode) (*decoder, error) {
	c, err := usagebatch.New()
	if err != nil {
		return nil, fmt.Errorf("projection decoder: %w", err)
	}
	if read == nil {
		read = eventlog.Decode
	}
	return &decoder{read: read, batches: c}, nil
}

// fact returns raw as a fact. What cannot be projected is a fact too, with its
// reason in poison.
func (d *decoder) fact(raw eventlog.Raw) fact {
	f := fact{raw: raw}
	if err := d.decode(&f); err != nil {
		return fact{raw: raw, poison: fmt.Errorf("%w: %w", errPoison, err)}
	}
	return f
}

func (d *decoder) decode(f *fact) error {
	if standsIn(&f.raw) {
		return d.carried(f)
	}
	rec, err := d.read(f.raw)
	if err != nil {
		return err
	}
	f.rec = rec
	if err := checkTime("recorded_at", rec.RecordedAt); err != nil {
		return err
	}
	if u, ok := rec.Event.(domain.UsageRecorded); ok {
		f.uses, err = d.uses(u.Batch)
		return err
	}
	if err := checkTime("effective_at", rec.Meta.EffectiveAt); err != nil {
		return err
	}
	f.activity, f.hasActivity = domain.ActivityOf(rec)
	if f.hasActivity {
		if err := checkActivity(f.activity); err != nil {
			return err
		}
	}
	return f.states()
}

// states takes out the state that the event leaves behind, if it carries one.
func (f *fact) states() error {
	if e, ok := f.rec.Event.(domain.KeyEvent); ok {
		s := e.State()
		s.SecretHash = "" // No reader of a table needs the secret's fingerprint.
		f.key = &s
		return f.encode(s)
	}
	if e, ok := f.rec.Event.(domain.FindingOpened); ok {
		f.finding = &e.After
	} else if e, ok := f.rec.Event.(domain.FindingExtended); ok {
		f.finding = &e.After
	} else {
		return nil
	}
	if v := f.finding.RuleVersion; v < 0 || v > math.MaxUint32 {
		return fmt.Errorf("rule version %d", v)
	}
	return f.encode(*f.finding)
}

func (f *fact) encode(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	f.text = string(b)
	return nil
}

func (d *decoder) uses(b domain.UsageBatch) ([]domain.Use, error) {
	uses, err := d.batches.Decode(b.Columns)
	if err != nil {
		return nil, fmt.Errorf("uses: %w", err)
	}
	if uint64(len(uses)) != uint64(b.Count) {
		return nil, fmt.Errorf("batch of %d uses says it has %d", len(uses), b.Count)
	}
	for i := range uses {
		if err := checkTime("time", uses[i].Time); err != nil {
			return nil, fmt.Errorf("use %d: %w", i, err)
		}
		if s := uses[i].Status; s < 0 || s > math.MaxUint16 {
			return nil, fmt.Errorf("use %d: status %d", i, s)
		}
	}
	return uses, nil
}

func checkActivity(a domain.Activity) error {
	if a.ReasonCode < 0 || a.ReasonCode > math.MaxUint16 {
		return fmt.Errorf("reason code %d", a.ReasonCode)
	}
	return checkTime("event time", a.EventTime)
}

// Times that every time column holds exactly. DateTime ends in 2106.
const (
	timeMSMin = 0
	timeMSMax = math.MaxUint32*1000 + 999
	// wideMSMax ends DateTime64: 2299-12-31 23:59:59.999.
	wideMSMax = 10413791999999
)

// checkTime refuses a time that orders rows and that the tables would cut in
// silence.
func checkTime(what string, t time.Time) error {
	if ms := t.UnixMilli(); ms < timeMSMin || ms > timeMSMax {
		return fmt.Errorf("%s %s is not between 1970 and 2106", what, t.Format(time.RFC3339))
	}
	return nil
}

// wideMS returns a time that only informs, cut to what the column can say: a zero
// time becomes 1970, an expiry in the year 9999 becomes 2299.
func wideMS(t time.Time) int64 { return min(max(t.UnixMilli(), 0), wideMSMax) }

func wideMSPointer(t *time.Time) *int64 {
	if t == nil {
		return nil
	}
	ms := wideMS(*t)
	return &ms
}

// address returns the address that s spells, and [netip.IPv6Unspecified] where it
// spells none.
func address(s string) netip.Addr {
	a, ok := domain.Use{Source: s}.Address()
	if !ok {
		return netip.IPv6Unspecified()
	}
	return a
}
