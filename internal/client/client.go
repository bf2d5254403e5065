// Package client talks to a keytrail server over HTTP, for the command line, the
// importer and the simulator. It holds no state but the address and the key, and it
// never prints the key.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// errorBodyBytesMax bounds what is read of an answer that is an error.
const errorBodyBytesMax = 64 << 10

// Client is one server and one key. It is safe for concurrent use.
type Client struct {
	base *url.URL
	key  string
	http *http.Client
}

// Config says where the server is and who asks.
type Config struct {
	Server  string // "http://127.0.0.1:8080"
	Key     string // An API key of keytrail. Wins over KeyFile.
	KeyFile string // A file that holds the key, such as DATA/admin.key.
}

// New returns a client, or an error that says which part of cfg to mend. It does not
// connect.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Server)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("server address %q: want something like http://127.0.0.1:8080 (--server)", cfg.Server)
	}
	key := cfg.Key
	if key == "" {
		if cfg.KeyFile == "" {
			return nil, errors.New("no API key: name the file that holds it with --key-file (the server writes DATA/admin.key at its first start)")
		}
		b, err := os.ReadFile(cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read API key: %w (the server writes DATA/admin.key at its first start; name it with --key-file)", err)
		}
		key = strings.TrimSpace(string(b))
	}
	if key == "" || strings.ContainsAny(key, " \t\r\n") {
		return nil, fmt.Errorf("file %s does not hold one API key", cfg.KeyFile)
	}
	tr := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       time.Minute,
	}
	return &Client{base: u, key: key, http: &http.Client{Transport: tr}}, nil
}

// Key returns the API key, for the one end point that takes it in a header of its own.
func (c *Client) Key() string { return c.key }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is an answer of the server that is not 2xx.
type Error struct {
	Status int
	Code   string // The server's class of refusal, where it gave one.
	// MessageCode is its stable identifier, such as locked_key.
	MessageCode string
	Message     string
	Trace       string
	// RetryAfter is what the server asked for on 503 and 429; 0 = nothing said.
	RetryAfter time.Duration
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("server answered %d: %s", e.Status, e.Message)
	if e.Trace != "" {
		s += " (trace " + e.Trace + ")"
	}
	return s
}

// Request is one call.
type Request struct {
	Method string
	Path   string // "/v1/apikeys"
	Query  url.Values
	Header http.Header
	Body   io.Reader
	Length int64 // Of Body, if known; 0 otherwise.
}

// Do sends r and returns the answer, which the caller closes. An answer that is not 2xx
// is an [*Error]; no answer at all says which server was asked.
func (c *Client) Do(ctx context.Context, r Request) (*http.Response, error) {
	u := *c.base
	u.Path = strings.TrimSuffix(u.Path, "/") + r.Path
	u.RawQuery = r.Query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), r.Body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	maps.Copy(req.Header, r.Header)
	if r.Length > 0 {
		req.ContentLength = r.Length
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("User-Agent", "keytrail-cli")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask server %s: %w (is 'keytrail serve' running there? name another with --server)", c.base.Redacted(), err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	return nil, errors.Join(readError(resp), resp.Body.Close())
}

// JSON sends in (nil: no body) as JSON and reads the answer into out (nil: ignored).
func (c *Client) JSON(ctx context.Context, r Request, in, out any) error {
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		r.Body, r.Length = bytes.NewReader(b), int64(len(b))
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	if out != nil {
		err = json.NewDecoder(resp.Body).Decode(out)
		if err != nil {
			err = fmt.Errorf("read answer of %s: %w", r.Path, err)
		}
	}
	return errors.Join(err, resp.Body.Close())
}

// readError turns an answer of api.md's error shape into an [*Error].
func readError(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, Message: http.StatusText(resp.StatusCode)}
	if d, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s"); err == nil {
		e.RetryAfter = d
	}
	var body struct {
		Errors []struct {
			Code, Message string
			MessageCode   string `json:"message_code"`
		}
		Trace string
		// The token end point answers in IBM's older shape.
		ErrorCode, ErrorMessage string
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, errorBodyBytesMax))
	if err != nil || json.Unmarshal(b, &body) != nil {
		return e
	}
	e.Trace = body.Trace
	switch {
	case len(body.Errors) > 0:
		e.Code, e.Message, e.MessageCode = body.Errors[0].Code, body.Errors[0].Message, body.Errors[0].MessageCode
	case body.ErrorMessage != "":
		e.Code, e.Message = body.ErrorCode, body.ErrorMessage
	}
	return e
}
