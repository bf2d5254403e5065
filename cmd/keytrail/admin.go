package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/client"
)

// adminGroup is a word of the command line with the calls behind it.
type adminGroup struct {
	use, short string
	calls      []adminCall
}

// adminCall is one call of the API as a command.
type adminCall struct {
	use, short string
	example    string // Without "  keytrail ".
	method     string
	// path is where: {account} is --account, {1} and {2} are the arguments.
	path  string
	query map[string]string // Always sent.
	flags []adminFlag
	// wrap puts the body's object into a list of that name; body sends the file of --file.
	wrap string
	body bool
	// anyTag sends If-Match: * unless --if-match says another.
	anyTag bool
	// list is the field of the answer that holds the rows, "." for the answer itself, ""
	// where the answer is one thing. next holds what leads to the page that follows.
	list, next string
	columns    []string
	// empty is what people read where the answer has no body; "done" if it is empty.
	empty string
}

// adminFlag is a flag that is a field of the body, or of the query. Its field is the
// flag's name with _ for -, unless it has another.
type adminFlag struct {
	name, field, usage string
	kind               flagKind
	inQuery            bool
}

func (f adminFlag) key() string {
	if f.field != "" {
		return f.field
	}
	return strings.ReplaceAll(f.name, "-", "_")
}

// flagKind is the type of a flag and of its field.
type flagKind int

const (
	textFlag flagKind = iota
	boolFlag
	numberFlag
	listFlag   // Given any number of times: a list of texts.
	numberPers // Given any number of times as NAME=NUMBER: an object.
)

// newAdmin returns the command of a group.
func newAdmin(g adminGroup) *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{Use: g.use, Short: g.short}
	r.addTo(cmd)
	examples := make([]string, len(g.calls))
	for i, c := range g.calls {
		cmd.AddCommand(c.command(r))
		examples[i] = "  keytrail " + c.example
	}
	cmd.Example = strings.Join(examples, "\n")
	return cmd
}

func (a adminCall) command(r *remote) *cobra.Command {
	var account, tag, file string
	cmd := &cobra.Command{Use: a.use, Short: a.short, Example: "  keytrail " + a.example}
	cmd.Args = cobra.ExactArgs(len(strings.Fields(a.use)) - 1)
	if strings.Contains(a.path, "{account}") || slices.ContainsFunc(a.flags, func(f adminFlag) bool { return f.field == "account_id" }) {
		cmd.Flags().StringVar(&account, "account", "", "account; that of your own key if not given")
	}
	if a.anyTag {
		cmd.Flags().StringVar(&tag, "if-match", "*", "entity tag that you saw; * for whatever it is now")
	}
	if a.body {
		cmd.Flags().StringVar(&file, "file", "", "file with the JSON to send; - for standard input")
	}
	for _, f := range a.flags {
		if f.name != "account" {
			f.addTo(cmd)
		}
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in, query, err := a.input(cmd, file)
		if err != nil {
			return err
		}
		c, err := r.client()
		if err != nil {
			return err
		}
		defer c.Close()
		path, err := a.place(cmd, c, account, args)
		if err != nil {
			return err
		}
		req := client.Request{Method: a.method, Path: path, Query: query, Header: http.Header{}}
		if a.anyTag {
			req.Header.Set("If-Match", tag)
		}
		return a.send(cmd, r, c, req, in)
	}
	return cmd
}

func (f adminFlag) addTo(cmd *cobra.Command) {
	switch f.kind {
	case textFlag:
		cmd.Flags().String(f.name, "", f.usage)
	case boolFlag:
		cmd.Flags().Bool(f.name, false, f.usage)
	case numberFlag:
		cmd.Flags().Int(f.name, 0, f.usage)
	case listFlag:
		cmd.Flags().StringArray(f.name, nil, f.usage+" (may be given several times)")
	case numberPers:
		cmd.Flags().StringToInt(f.name, nil, f.usage+" (may be given several times)")
	}
}

// value returns what the flag was given.
func (f adminFlag) value(cmd *cobra.Command) (any, error) {
	switch f.kind {
	case textFlag:
		return cmd.Flags().GetString(f.name) //nolint:wrapcheck // The caller names the flag.
	case boolFlag:
		return cmd.Flags().GetBool(f.name) //nolint:wrapcheck // The caller names the flag.
	case numberFlag:
		return cmd.Flags().GetInt(f.name) //nolint:wrapcheck // The caller names the flag.
	case listFlag:
		return cmd.Flags().GetStringArray(f.name) //nolint:wrapcheck // The caller names the flag.
	case numberPers:
		return cmd.Flags().GetStringToInt(f.name) //nolint:wrapcheck // The caller names the flag.
	}
	return nil, errors.New("a flag of an unknown kind")
}

// input returns the body and the query that the flags say; nil for no body.
func (a adminCall) input(cmd *cobra.Command, file string) (any, url.Values, error) {
	query := url.Values{}
	for name, v := range a.query {
		query.Set(name, v)
	}
	if a.body {
		in, err := readBody(cmd, file)
		return in, query, err
	}
	fields := map[string]any{}
	for _, f := range a.flags {
		if !cmd.Flags().Changed(f.name) {
			continue
		}
		v, err := f.value(cmd)
		if err != nil {
			return nil, nil, fmt.Errorf("read --%s: %w", f.name, err)
		}
		if f.inQuery {
			query.Set(f.key(), fmt.Sprint(v))
			continue
		}
		fields[f.key()] = v
	}
	switch {
	case a.method == http.MethodGet || a.method == http.MethodDelete || len(fields) == 0 && len(a.flags) == 0:
		return nil, query, nil
	case a.wrap != "":
		return map[string]any{a.wrap: []any{fields}}, query, nil
	}
	return fields, query, nil
}

func readBody(cmd *cobra.Command, file string) (json.RawMessage, error) {
	if file == "" {
		return nil, errors.New("no --file: name the file with the JSON to send, or - for standard input")
	}
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(cmd.InOrStdin())
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read --file: %w", err)
	}
	if !json.Valid(text) {
		return nil, fmt.Errorf("%s does not hold JSON", file)
	}
	return text, nil
}

// place fills the path in. Whoever names no account means the one of the key.
func (a adminCall) place(cmd *cobra.Command, c *client.Client, account string, args []string) (string, error) {
	path := a.path
	if strings.Contains(path, "{account}") {
		if account == "" {
			var me struct {
				Account string `json:"account_id"`
			}
			req := client.Request{Method: http.MethodGet, Path: "/v1/apikeys/details", Header: http.Header{"Iam-Apikey": {c.Key()}}}
			if err := c.JSON(cmd.Context(), req, nil, &me); err != nil {
				return "", fmt.Errorf("ask which account your key is of: %w", err)
			}
			account = me.Account
		}
		path = strings.ReplaceAll(path, "{account}", url.PathEscape(account))
	}
	for i, arg := range args {
		path = strings.ReplaceAll(path, "{"+strconv.Itoa(i+1)+"}", url.PathEscape(arg))
	}
	return path, nil
}

// send sends the request, follows the pages of a list to their end, and prints.
func (a adminCall) send(cmd *cobra.Command, r *remote, c *client.Client, req client.Request, in any) error {
	var rows []any
	for {
		text, err := answer(cmd, c, req, in)
		if err != nil {
			return err
		}
		if a.list == "" {
			return a.printOne(cmd.OutOrStdout(), r, text)
		}
		page, next, err := a.page(text)
		if err != nil {
			return err
		}
		rows = append(rows, page...)
		if next == "" {
			return a.printList(cmd.OutOrStdout(), r, rows)
		}
		if req.Query, err = nextQuery(next, req.Query); err != nil {
			return err
		}
	}
}

// answer returns the body of the answer.
func answer(cmd *cobra.Command, c *client.Client, req client.Request, in any) (json.RawMessage, error) {
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		req.Body, req.Length = strings.NewReader(string(text)), int64(len(text))
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(cmd.Context(), req)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return text, nil
}

// page returns the rows of an answer and what leads to the next page.
func (a adminCall) page(text json.RawMessage) (rows []any, next string, err error) {
	if a.list == "." {
		if err := json.Unmarshal(text, &rows); err != nil {
			return nil, "", fmt.Errorf("read answer: %w", err)
		}
		return rows, "", nil
	}
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, "", fmt.Errorf("read answer: %w", err)
	}
	rows, _ = whole[a.list].([]any)
	next, _ = whole[a.next].(string)
	return rows, next, nil
}

// nextQuery returns the query of the page that next leads to: a link, or a token.
func nextQuery(next string, now url.Values) (url.Values, error) {
	u, err := url.Parse(next)
	if err != nil {
		return nil, fmt.Errorf("read the link to the next page: %w", err)
	}
	if u.RawQuery != "" {
		return u.Query(), nil
	}
	now.Set("pagetoken", next)
	return now, nil
}

func (a adminCall) printList(out io.Writer, r *remote, rows []any) error {
	if r.json() {
		if rows == nil {
			rows = []any{}
		}
		return printJSON(out, rows)
	}
	table := make([][]string, 0, len(rows))
	for _, row := range rows {
		line := make([]string, len(a.columns))
		for i, column := range a.columns {
			line[i] = field(row, column)
		}
		table = append(table, line)
	}
	head := make([]string, len(a.columns))
	for i, column := range a.columns {
		head[i] = strings.ToUpper(strings.ReplaceAll(column, "_", " "))
	}
	return printTable(out, head, table)
}

// printOne prints one thing, a line for each field that people look at.
func (a adminCall) printOne(out io.Writer, r *remote, text json.RawMessage) error {
	if len(text) == 0 {
		if r.json() {
			return nil
		}
		said := "done"
		if a.empty != "" {
			said = a.empty
		}
		_, err := fmt.Fprintln(out, said)
		return err //nolint:wrapcheck // It is the terminal's.
	}
	if r.json() {
		return printJSON(out, text)
	}
	var whole any
	if err := json.Unmarshal(text, &whole); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	rows := make([][]string, 0, len(a.columns))
	for _, column := range a.columns {
		rows = append(rows, []string{column, field(whole, column)})
	}
	return printTable(out, []string{"FIELD", "VALUE"}, rows)
}

// field returns what stands at a dotted path, for people.
func field(v any, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return shown(v)
}

// shown returns a value for people.
func shown(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		parts := make([]string, len(v))
		for i, one := range v {
			parts[i] = shown(one)
		}
		return strings.Join(parts, ", ")
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
