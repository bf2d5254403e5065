package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// wire is one keep-alive HTTP/1.1 connection that sends what it is given and reads the
// answer, and nothing else. The load client shares the machine with the server, so what
// it burns is missing there: it costs a tenth of [net/http]'s client.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	head string // What every request has.
	body []byte // Of the last answer.
}

// answerBytesMax bounds the body of one answer.
const answerBytesMax = 1 << 20

// dial connects to a server at host:port. Every request carries key.
func dial(ctx context.Context, host, key string) (*wire, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	head := " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + key + "\r\nUser-Agent: keytrail-bench\r\n"
	return &wire{conn: conn, in: bufio.NewReaderSize(conn, 16<<10), head: head}, nil
}

func (w *wire) close() error { return w.conn.Close() }

// do sends one request with a JSON body and returns the body of the answer, which is
// valid until the next call. An answer other than want is an error. header is whole lines.
func (w *wire) do(want int, method, path, header, body string) ([]byte, error) {
	w.out = append(w.out[:0], method...)
	w.out = append(append(append(w.out, ' '), path...), w.head...)
	w.out = append(append(w.out, header...), "Content-Type: application/json\r\nContent-Length: "...)
	w.out = strconv.AppendInt(w.out, int64(len(body)), 10)
	w.out = append(append(w.out, "\r\n\r\n"...), body...)
	if _, err := w.conn.Write(w.out); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	status, err := w.answer()
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if status != want {
		return nil, fmt.Errorf("%s %s: answered %d, want %d: %s", method, path, status, want, w.body)
	}
	return w.body, nil
}

// answer reads one answer into w.body.
func (w *wire) answer() (status int, err error) {
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 || string(line[:9]) != "HTTP/1.1 " {
		return 0, fmt.Errorf("no status line: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("no status line: %q", line)
	}
	length := 0
	for {
		if line, err = w.in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || length < 0 || length > answerBytesMax {
				return 0, fmt.Errorf("length %q", value)
			}
		}
		if bytes.HasPrefix(line, []byte("Transfer-Encoding: ")) {
			return 0, errors.New("the answer has no length")
		}
	}
	if cap(w.body) < length {
		w.body = make([]byte, length)
	}
	w.body = w.body[:length]
	_, err = io.ReadFull(w.in, w.body)
	return status, err
}
