package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
)

const (
	// reportPartBytesMax bounds a part of a report; a server takes events of 1 MiB.
	reportPartBytesMax = 512 << 10
	// reportQueueMax bounds the reports that wait to be made by one node.
	reportQueueMax = 64
	// reportMakeMax bounds the making of one, the wait for the tables too.
	reportMakeMax = 5 * time.Minute
	// reportPage is how many events are read at a time: parts are large.
	reportPage = 16
	// reportsRemembered is how many accounts' reports a node remembers, without content.
	reportsRemembered = 1024
)

// AccountActivityReader says who and what there was in an account, and who signed in; the
// read side does.
type AccountActivityReader interface {
	// AccountActivity returns what the tables hold of the log up to position, of what
	// was true at until. The tables hold position already.
	AccountActivity(ctx context.Context, account domain.AccountID, position uint64, until time.Time) (domain.AccountActivity, error)
}

// Reports makes the reports that are asked for, one after the other. What is asked for is
// durable before; who is killed while making one makes it when it is asked for again, with
// the same content. It is safe for concurrent use.
type Reports struct {
	commands *Commands
	activity AccountActivityReader
	wait     Waiter
	logger   *slog.Logger
	queue    chan reportRef

	mu    sync.Mutex // Guards under.
	under map[reportRef]bool
}

type reportRef struct {
	account   domain.AccountID
	reference string
}

// NewReports returns the maker; nothing is made until Run runs.
func NewReports(commands *Commands, activity AccountActivityReader, wait Waiter, logger *slog.Logger) *Reports {
	return &Reports{
		commands: commands, activity: activity, wait: wait, logger: logger,
		queue: make(chan reportRef, reportQueueMax), under: map[reportRef]bool{},
	}
}

// ensure has the report made unless it is being made. Where too many wait it is left to
// whoever asks next.
func (r *Reports) ensure(ref reportRef) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.under[ref] {
		return
	}
	select {
	case r.queue <- ref:
		r.under[ref] = true
	default:
	}
}

// Run makes reports until ctx ends. It may be called once.
func (r *Reports) Run(ctx context.Context) error {
	for {
		select {
		case ref := <-r.queue:
			if err := r.make(ctx, ref); err != nil && ctx.Err() == nil {
				r.logger.LogAttrs(ctx, slog.LevelWarn, "a report is not made; it is tried again when it is asked for",
					slog.String("account", string(ref.account)), slog.String("reference", ref.reference), slog.Any("error", err))
			}
			r.mu.Lock()
			delete(r.under, ref)
			r.mu.Unlock()
		case <-ctx.Done():
			return nil
		}
	}
}

// make brings the report to its end, from wherever it stands.
func (r *Reports) make(ctx context.Context, ref reportRef) error {
	ctx, cancel := context.WithTimeout(ctx, reportMakeMax)
	defer cancel()
	s := r.commands
	f, err := foldNow(ctx, s.cfg.Log, s.reports, domain.ReportStream(ref.account))
	if err != nil {
		return err
	}
	report, ok := f.state.Find(ref.reference)
	if !ok || report.Complete() {
		return nil
	}
	reached, err := r.wait.Wait(ctx, report.Position)
	if err != nil {
		return fmt.Errorf("wait for the tables: %w", err)
	}
	if reached < report.Position {
		return fmt.Errorf("the tables hold position %d, not %d", reached, report.Position)
	}
	seen, err := r.activity.AccountActivity(ctx, ref.account, report.Position, report.Until)
	if err != nil {
		return fmt.Errorf("read the account's activity: %w", err)
	}
	account, err := s.accountAt(ctx, ref.account, report.Position)
	if err != nil {
		return err
	}
	parts, err := domain.InactiveSince(account, seen, report.From).Cut(reportPartBytesMax)
	if err != nil {
		return err //nolint:wrapcheck // It says what was attempted.
	}
	return s.completeReport(ctx, ref.account, report, parts)
}

// accountAt returns the fold of the account's stream up to position.
func (s *Commands) accountAt(ctx context.Context, id domain.AccountID, position uint64) (domain.Account, error) {
	var account domain.Account
	err := readOn(ctx, s.cfg.Log, domain.AccountStream(id), 0, func(rec domain.Recorded) {
		if rec.Position <= position {
			account = account.Evolve(rec)
		}
	})
	return account, err
}

// completeReport appends the parts that are not there yet, one after the other.
func (s *Commands) completeReport(ctx context.Context, account domain.AccountID, report domain.Report, parts []domain.ReportContent) error {
	o := Order{
		Caller:        auth.NewCaller(systemInitiator(), nil),
		CorrelationID: report.Correlation, CausationID: report.Cause.String(), RequestID: "report-" + report.Reference,
	}
	for i, part := range parts {
		cmd := domain.CompleteReport{
			Account: account, Reference: report.Reference, Part: uint64(i) + 1, Parts: uint64(len(parts)), Content: part,
		}
		if _, err := s.report(ctx, o, account, cmd); err != nil {
			return err
		}
	}
	return nil
}

func (s *Commands) report(ctx context.Context, o Order, account domain.AccountID, cmd domain.ReportCommand) (folded[domain.Reports], error) {
	return transact(ctx, s, s.reports, o, domain.ReportStream(account), false, func(r domain.Reports) (decision, error) {
		at := r.NextEffective(s.cfg.Now())
		if c, ok := cmd.(domain.RequestReport); ok {
			c.At = at
			cmd = c
		}
		events, err := r.Decide(cmd)
		return decision{account: account, events: events, at: at}, err //nolint:wrapcheck // The domain's words.
	})
}

// RequestReport asks for a report on the hours before now and returns its reference.
// Whoever may read the account's audit data may ask.
func (s *Commands) RequestReport(ctx context.Context, o Order, account domain.AccountID, kind string, hours uint64) (string, uint64, error) {
	refusal := reportRefusal(o, account, requestOf(map[string]any{"type": kind, "duration_hours": hours}))
	if err := domain.AuthorizeAccount(o.Caller.Initiator, o.Caller.Standing(account), domain.RightRead); err != nil {
		return "", 0, s.refuse(ctx, o, refusal, err)
	}
	reference, err := s.newUUID()
	if err != nil {
		return "", 0, err
	}
	f, err := s.report(ctx, o, account, domain.RequestReport{Account: account, Reference: reference, Kind: kind, Hours: hours})
	if err != nil {
		return "", 0, s.refuse(ctx, o, refusal, err)
	}
	return reference, f.position, nil
}

func reportRefusal(o Order, account domain.AccountID, request []byte) domain.CommandRefused {
	e := domain.CommandRefused{Action: domain.ActionReportCreate, Account: account, Request: request}
	if !o.Caller.Standing(account).Known() {
		e.Account = o.Caller.Initiator.Account // A stranger writes nothing into this account's records.
	}
	return e
}

// ReadReport returns a report and, where it is complete, what is in it. The reference
// "latest" is the newest that is complete.
func (s *Commands) ReadReport(ctx context.Context, o Order, account domain.AccountID, reference string) (domain.Report, domain.ReportContent, uint64, error) {
	var none domain.ReportContent
	if err := domain.AuthorizeAccount(o.Caller.Initiator, o.Caller.Standing(account), domain.RightRead); err != nil {
		e := reportRefusal(o, account, nil)
		e.Action = domain.ActionReportRead
		return domain.Report{}, none, 0, s.refuseRead(ctx, o, e, err)
	}
	stream := domain.ReportStream(account)
	f, err := foldNow(ctx, s.cfg.Log, s.reports, stream)
	if err != nil {
		return domain.Report{}, none, 0, err
	}
	report, ok := f.state.Find(reference)
	if reference == "latest" {
		report, ok = f.state.Latest()
	}
	if !ok {
		return report, none, 0, domain.Errorf(domain.NotFound, "no such report").WithMessageCode("report_not_found")
	}
	if !report.Complete() {
		return report, none, f.position, nil
	}
	content, err := s.reportContent(ctx, stream, report)
	return report, content, f.position, err
}

// reportContent reads the parts of a complete report.
func (s *Commands) reportContent(ctx context.Context, stream string, report domain.Report) (domain.ReportContent, error) {
	var all domain.ReportContent
	found := uint64(0)
	for from := report.First; found < report.Parts; from += reportPage {
		page, err := s.cfg.Log.ReadStream(ctx, stream, from, reportPage)
		if err != nil {
			return all, logError("read "+stream, err)
		}
		if len(page) == 0 {
			return all, errors.New("the parts of a complete report are not in the log")
		}
		for _, raw := range page {
			if raw.Type != domain.TypeReportCompleted {
				continue
			}
			rec, err := eventlog.Decode(raw)
			if err != nil {
				return all, fmt.Errorf("read report: %w", err)
			}
			if e, ok := rec.Event.(domain.ReportCompleted); ok && e.Reference == report.Reference {
				found++
				all.Users = slices.Concat(all.Users, e.Users)
				all.ServiceIDs = slices.Concat(all.ServiceIDs, e.ServiceIDs)
				all.Keys = slices.Concat(all.Keys, e.Keys)
			}
		}
	}
	return all, nil
}
