package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

// catPage is how many events of a stream one read asks for.
const catPage = 500

// errEnough ends a walk through the log that has shown what was asked for.
var errEnough = errors.New("enough")

// catOptions are what cat is asked for.
type catOptions struct {
	data, eventstore string
	stream           string // Empty: all.
	from, limit      uint64
	output           string
	uses             bool
}

func newLogCat() *cobra.Command {
	var o catOptions
	var all bool
	cmd := &cobra.Command{
		Use: "cat [STREAM]", Short: "Print the events of a stream, or of the whole log", Args: cobra.MaximumNArgs(1),
		Long: `cat prints one event a line, oldest first, as they are stored: of one stream from revision
--from on, or with --all of the whole log from position --from on. Usage is stored in batches;
--uses prints each use of a batch on a line of its own instead.

It reads the data folder, whether a server runs on it or not, or with --eventstore an
EventStoreDB, of which --all shows the streams of keytrail (kt. and ktx.). What looks like the
value of a key is struck out. Data that is neither JSON nor a usage batch is named by its size
and SHA-256.`,
		Example: `  keytrail log cat kt.apikey-ApiKey-1f2e… --data ./data
  keytrail log cat --all --from 123456 --limit 20 -o json
  keytrail log cat kt.usage-client-07 --uses -o json | jq .use.action
  keytrail log cat --all --eventstore "$ESDB"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == all {
				return errors.New("name a stream, or say --all")
			}
			if len(args) == 1 {
				o.stream = args[0]
			}
			if err := checkOutput(o.output); err != nil {
				return err
			}
			return cat(cmd, o)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.data, "data", "data", "data folder")
	fs.StringVar(&o.eventstore, "eventstore", "", "EventStoreDB to read instead of the data folder: esdb://user:password@host:2113?tls=true")
	fs.BoolVar(&all, "all", false, "the whole log")
	fs.Uint64Var(&o.from, "from", 0, "first revision of the stream, or first position of the log")
	fs.Uint64Var(&o.limit, "limit", 0, "print at most so many events (0: all)")
	fs.StringVarP(&o.output, "output", "o", "text", "text or json (one object a line)")
	fs.BoolVar(&o.uses, "uses", false, "print the uses of usage batches, one a line")
	return cmd
}

// cat walks through what o names and prints it.
func cat(cmd *cobra.Command, o catOptions) (err error) {
	batches, err := usagebatch.New()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	defer func() {
		if flushed := out.Flush(); flushed != nil && err == nil {
			err = fmt.Errorf("print events: %w", flushed)
		}
	}()
	p := &catPrinter{out: out, options: o, batches: batches}
	if o.eventstore == "" {
		err = catFolder(cmd.Context(), o, p.print)
	} else {
		err = catServer(cmd, o, p.print)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// catFolder reads the data folder.
func catFolder(ctx context.Context, o catOptions, show func(eventlog.Raw) error) error {
	from := o.from
	if o.stream != "" {
		from = 0
	}
	err := eventstore.Scan(ctx, logFolder(o.data), from, func(e eventstore.StoredEvent) error {
		if o.stream != "" && (e.Stream != o.stream || e.Revision < o.from) {
			return nil
		}
		return show(eventlog.Raw{
			Stream: e.Stream, Revision: e.Revision, Position: e.Position, ID: domain.EventID(e.ID), Type: e.Type,
			JSON: e.JSON, Data: e.Data, Meta: e.Meta, RecordedAt: e.Created,
		})
	})
	if err != nil && !errors.Is(err, errEnough) {
		return folderError(err)
	}
	return err
}

// catServer reads an EventStoreDB.
func catServer(cmd *cobra.Command, o catOptions, show func(eventlog.Raw) error) (err error) {
	ctx := cmd.Context()
	l, err := eventlog.Open(ctx, eventlog.Config{Connection: o.eventstore, Logger: quietLogger(cmd.ErrOrStderr())})
	if err != nil {
		return fmt.Errorf("%w (check --eventstore and that the server is up)", err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if o.stream == "" {
		return followAll(ctx, l, o.from, show)
	}
	for from := o.from; ; {
		events, err := l.ReadStream(ctx, o.stream, from, catPage)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := show(e); err != nil {
				return err
			}
		}
		if len(events) < catPage {
			return nil
		}
		from = events[len(events)-1].Revision + 1
	}
}

// followAll shows what the log holds now.
func followAll(ctx context.Context, l *eventlog.Log, from uint64, show func(eventlog.Raw) error) error {
	sub, err := l.Subscribe(ctx, eventlog.SubscribeOptions{Prefixes: []string{"kt.", "ktx."}, FromStart: true})
	if err != nil {
		return err
	}
	defer sub.Close()
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		if d.Event != nil && d.Event.Position >= from {
			if err := show(*d.Event); err != nil {
				return err
			}
		}
		if d.CaughtUp {
			return nil
		}
	}
}

// catPrinter prints events.
type catPrinter struct {
	out     *bufio.Writer
	options catOptions
	batches *usagebatch.Codec
	shown   uint64
}

// catLine is one line as JSON.
type catLine struct {
	Position   uint64          `json:"position"`
	Stream     string          `json:"stream"`
	Revision   uint64          `json:"revision"`
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	RecordedAt time.Time       `json:"recorded_at"`
	Data       json.RawMessage `json:"data,omitempty"`
	Meta       json.RawMessage `json:"meta,omitempty"`
	DataBytes  int             `json:"data_bytes,omitempty"`
	DataSHA256 string          `json:"data_sha256,omitempty"`
	Index      *int            `json:"index,omitempty"`
	Use        *catUse         `json:"use,omitempty"`
}

// catUse is one use of a batch, with the names that the API has for its fields.
type catUse struct {
	ID             string            `json:"id"`
	Time           time.Time         `json:"time"`
	Account        string            `json:"account_id"`
	KeyID          string            `json:"key_id,omitempty"`
	KeyFingerprint string            `json:"key_fingerprint,omitempty"`
	IAMID          string            `json:"iam_id,omitempty"`
	Action         string            `json:"action"`
	Access         string            `json:"access,omitempty"`
	Outcome        string            `json:"outcome"`
	Status         int               `json:"status,omitempty"`
	ErrorCode      string            `json:"error_code,omitempty"`
	Source         string            `json:"source,omitempty"`
	UserAgent      string            `json:"user_agent,omitempty"`
	Region         string            `json:"region,omitempty"`
	Target         string            `json:"target,omitempty"`
	RequestID      string            `json:"request_id,omitempty"`
	LatencyMS      uint32            `json:"latency_ms,omitempty"`
	Bytes          uint64            `json:"bytes,omitempty"`
	Country        string            `json:"country,omitempty"`
	ASN            uint32            `json:"asn,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
}

// print shows one event, or the uses of a batch, and returns errEnough after the last
// that was asked for.
func (p *catPrinter) print(e eventlog.Raw) error {
	if err := p.event(e); err != nil {
		return err
	}
	if p.shown++; p.options.limit > 0 && p.shown >= p.options.limit {
		return errEnough
	}
	return nil
}

func (p *catPrinter) event(e eventlog.Raw) error {
	line := catLine{
		Position: e.Position, Stream: e.Stream, Revision: e.Revision, ID: e.ID.String(), Type: e.Type,
		RecordedAt: e.RecordedAt.UTC(), Meta: shownJSON(e.Meta),
	}
	if e.Type == domain.TypeUsageRecorded {
		return p.batch(e, line)
	}
	if line.Data = shownJSON(e.Data); line.Data == nil && len(e.Data) > 0 {
		sum := sha256.Sum256(e.Data)
		line.DataBytes, line.DataSHA256 = len(e.Data), hex.EncodeToString(sum[:])
	}
	return p.line(line)
}

// shownJSON returns JSON with what looks like a key's value struck out, or nil if b is none.
func shownJSON(b []byte) json.RawMessage {
	if len(b) == 0 || !json.Valid(b) {
		return nil
	}
	return domain.RedactKeyValues(b)
}

// batch shows a usage batch: what its header says, or its uses.
func (p *catPrinter) batch(e eventlog.Raw, line catLine) error {
	fact, err := domain.DecodeEvent(e.Type, e.Data)
	if err != nil {
		return fmt.Errorf("%s@%d: %w", e.Stream, e.Revision, err)
	}
	recorded, ok := fact.(domain.UsageRecorded)
	if !ok {
		return fmt.Errorf("%s@%d: a usage batch that is a %T", e.Stream, e.Revision, fact)
	}
	if !p.options.uses {
		header := recorded.Batch
		header.Columns = nil
		data, err := json.Marshal(header)
		if err != nil {
			return fmt.Errorf("print batch: %w", err)
		}
		line.Data, line.DataBytes = domain.RedactKeyValues(data), len(e.Data)
		return p.line(line)
	}
	uses, err := p.batches.Decode(recorded.Batch.Columns)
	if err != nil {
		return fmt.Errorf("%s@%d: %w", e.Stream, e.Revision, err)
	}
	line.Meta = nil
	for i, u := range uses {
		line.Index, line.Use = &i, useLine(u)
		if err := p.line(line); err != nil {
			return err
		}
	}
	return nil
}

func useLine(u domain.Use) *catUse {
	return &catUse{
		ID: u.ID, Time: u.Time, Account: string(u.Account), KeyID: string(u.KeyID), KeyFingerprint: u.KeyFingerprint, IAMID: string(u.IAMID),
		Action: u.Action, Access: string(u.Access), Outcome: string(u.Outcome), Status: u.Status, ErrorCode: u.ErrorCode,
		Source: u.Source, UserAgent: u.UserAgent, Region: u.Region, Target: u.Target, RequestID: u.RequestID,
		LatencyMS: u.LatencyMS, Bytes: u.Bytes, Country: u.Country, ASN: u.ASN, Labels: u.Labels,
	}
}

func (p *catPrinter) line(l catLine) error {
	var body any = l
	if p.options.output == "text" {
		body = l.Data
		switch {
		case l.Use != nil:
			body = l.Use
		case l.Data == nil:
			body = map[string]any{"bytes": l.DataBytes, "sha256": l.DataSHA256}
		}
	}
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("print event: %w", err)
	}
	b = domain.RedactKeyValues(b)
	if p.options.output == "json" {
		_, err = fmt.Fprintf(p.out, "%s\n", b)
	} else {
		_, err = fmt.Fprintf(p.out, "%d  %s  %s@%d  %s  %s\n", l.Position, l.RecordedAt.Format(time.RFC3339Nano), l.Stream, l.Revision, l.Type, b)
	}
	if err != nil {
		return fmt.Errorf("print event: %w", err)
	}
	return nil
}
