package query

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ndjsonLines writes one CADF event a line.
type ndjsonLines struct{ to io.Writer }

var (
	_ lineWriter = (*ndjsonLines)(nil)
	_ lineWriter = (*csvLines)(nil)
)

func (l *ndjsonLines) header() error         { return nil }
func (l *ndjsonLines) flush() error          { return nil }
func (l *ndjsonLines) trailerPrefix() string { return "" }

func (l *ndjsonLines) record(r record) error {
	text, err := r.cadf()
	if err != nil {
		return err
	}
	if _, err := l.to.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// csvLines writes a table with a header, RFC 4180 but for line ends of one byte.
type csvLines struct{ to *csv.Writer }

func newCSVLines(to io.Writer) *csvLines { return &csvLines{to: csv.NewWriter(to)} }

func (l *csvLines) trailerPrefix() string { return "# " }

func (l *csvLines) header() error {
	return l.write([]string{
		"time", "id", "account_id", "action", "outcome", "severity", "reason_code", "reason", "initiator_id", "initiator_name",
		"initiator_type", "credential_type", "credential_id", "address", "agent", "target_id", "target_name", "target_type", "key_id",
		"correlation_id", "data_event", "message", "request_data", "position", "index", "stream", "revision", "event_type",
	})
}

func (l *csvLines) record(r record) error {
	a, i := r.activity, r.activity.Initiator
	cells := []string{
		r.time.UTC().Format(time.RFC3339Nano), a.ID, string(a.Account), a.Action, string(a.Outcome), string(a.Severity), strconv.Itoa(a.ReasonCode),
		a.Reason, string(i.IAMID), i.Name, string(i.Type), i.Credential, string(i.CredentialID), i.Address, i.Agent, a.TargetID, a.TargetName,
		a.TargetType, string(a.KeyID), a.CorrelationID, strconv.FormatBool(a.DataEvent), a.Message, string(a.RequestData),
		strconv.FormatUint(r.position, 10), strconv.FormatUint(uint64(r.index), 10), r.ext.Stream, strconv.FormatUint(r.ext.Revision, 10), r.ext.EventType,
	}
	for n, cell := range cells {
		cells[n] = formulaSafe(cell)
	}
	return l.write(cells)
}

func (l *csvLines) write(cells []string) error {
	if err := l.to.Write(cells); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

func (l *csvLines) flush() error {
	l.to.Flush()
	if err := l.to.Error(); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// formulaSafe puts an apostrophe before a cell that a spreadsheet would run: one whose
// first character, white space and quotes aside, is = + - @ or their full-width forms,
// or that begins with a control character.
func formulaSafe(cell string) string {
	if cell == "" {
		return cell
	}
	body := strings.TrimLeft(cell, " \u00a0\u3000\ufeff\"'")
	first, _ := utf8.DecodeRuneInString(body)
	if cell[0] < ' ' || body != "" && (first < ' ' || strings.ContainsRune("=+-@＝＋－＠", first)) {
		return "'" + cell
	}
	return cell
}
