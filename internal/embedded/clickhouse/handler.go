package clickhouse

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// statementBytesMax bounds the text of a statement; an insert's data is not
	// part of it.
	statementBytesMax = 64 << 20
	insertPiece       = 1 << 20
	// writeTimeout is how long a client may let one piece of a result lie.
	writeTimeout = 10 * time.Minute
)

// handler is ClickHouse's HTTP interface over the engine's sessions.
type handler struct {
	pool    *pool
	hello   []byte
	logger  *slog.Logger
	aborted func() // Breaks the connection under an answer.
	damage  chan<- error
}

// newHandler returns the interface. It tells of damaged parts on damage, if there is room.
func newHandler(p *pool, logger *slog.Logger, damage chan<- error) (http.Handler, error) {
	answer, err := hello(p.lib.version())
	if err != nil {
		return nil, err
	}
	h := &handler{pool: p, hello: answer, logger: logger, aborted: func() { panic(http.ErrAbortHandler) }, damage: damage}
	mux := http.NewServeMux()
	mux.HandleFunc("/ping", h.ping)
	mux.HandleFunc("/", h.statement)
	return mux, nil
}

// ping answers only if the engine does.
func (h *handler) ping(w http.ResponseWriter, r *http.Request) {
	if err := h.pool.ping(); err != nil {
		h.fail(r.Context(), w, err)
		return
	}
	h.write(r.Context(), w, []byte("Ok.\n"))
}

// statement runs one statement: from the body, or from the parameter query with
// the rest of it, or an INSERT's data, in the body. A 200 whose body came to its
// proper end means that all of it was done and is all there.
func (h *handler) statement(w http.ResponseWriter, r *http.Request) {
	req, err := parseRequest(r.URL.Query())
	if err != nil {
		h.fail(r.Context(), w, err)
		return
	}
	body := io.Reader(r.Body)
	data := kindOf(req.query) == kindInsert && r.ContentLength != 0
	if !data {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, statementBytesMax))
		if err != nil {
			h.fail(r.Context(), w, exceptionf(codeBadArguments, "BAD_ARGUMENTS", "the statement could not be read: %v", err))
			return
		}
		req.query = strings.TrimSpace(req.query + "\n" + string(text))
	}
	if req.query == helloQuery {
		h.write(r.Context(), w, h.hello)
		return
	}
	session, err := h.pool.borrow(r.Context())
	if err != nil {
		h.fail(r.Context(), w, err)
		return
	}
	defer h.pool.give(session)
	switch {
	case data:
		err = h.insert(session, req, body)
	case kindOf(req.query) == kindSelect:
		err = h.query(r.Context(), w, session, req)
	default:
		err = h.command(r.Context(), w, session, req)
	}
	if err != nil {
		h.fail(r.Context(), w, err)
		if !data { // What is wrong with an insert's data is no damage of ours.
			h.tell(err)
		}
	}
}

// tell passes on that a part is damaged.
func (h *handler) tell(err error) {
	if errors.Is(err, errClientLeft) || errors.Is(err, errReported) || !damaged(asException(err).code) {
		return
	}
	select {
	case h.damage <- err:
	default: // It is known.
	}
}

// insert feeds the body to the engine. A body that breaks off inserts nothing.
// Once all data is there the insert is carried through, whether or not the client
// still waits.
func (h *handler) insert(s *session, req request, body io.Reader) error {
	text, format, err := splitInsert(req.query)
	if err != nil {
		return err
	}
	return s.with(req.database, req.settings, func(c *conn) error {
		in, err := c.insert(text, format)
		if err != nil {
			return err
		}
		if err := feed(in, body); err != nil {
			in.cancel()
			return err
		}
		return in.done()
	})
}

// feed passes body on in large pieces. Only the body's own end is success.
func feed(in insert, body io.Reader) error {
	buf := make([]byte, insertPiece)
	for {
		n, readErr := fill(body, buf)
		end := errors.Is(readErr, io.EOF)
		if readErr != nil && !end {
			return fmt.Errorf("the insert's data broke off: %w", readErr)
		}
		if err := in.append(buf[:n]); err != nil {
			return err
		}
		if end {
			return nil
		}
	}
}

// fill reads until buf is full or r gives an error, which it returns unchanged:
// io.ReadFull would report a proper end and a broken connection alike.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err //nolint:wrapcheck // The caller tells EOF from the rest.
}

// command runs a statement without streaming; its output is small. It goes on
// when the client leaves, as ClickHouse does it.
func (h *handler) command(ctx context.Context, w http.ResponseWriter, s *session, req request) error {
	return s.with(req.database, req.settings, func(c *conn) error {
		out, err := c.run(req.query, req.format)
		if err != nil {
			return err
		}
		defer out.free()
		if _, err := w.Write(out.bytes()); err != nil {
			h.logger.DebugContext(ctx, "client_left", slog.Any("error", err))
		}
		return nil
	})
}

// query streams a SELECT. When the client leaves, the query is stopped. An error
// after the first piece breaks the connection, so that what was sent cannot be
// taken for the whole.
func (h *handler) query(ctx context.Context, w http.ResponseWriter, s *session, req request) error {
	id := h.pool.nextID()
	req.settings["log_comment"] = id
	sent := false
	err := s.with(req.database, req.settings, func(c *conn) error {
		defer h.pool.killWhenDone(ctx, id)()
		st, err := c.stream(req.query, req.format)
		if err != nil {
			return err
		}
		atEnd := false
		defer func() { st.close(atEnd) }()
		tag := rand.Text()[:16]
		for {
			piece, more, err := st.next()
			if err != nil {
				atEnd = true
				return h.late(ctx, w, sent, tag, err)
			}
			if !more {
				atEnd = true
				return nil
			}
			if !sent {
				w.Header().Set("Content-Type", "application/octet-stream")
				w.Header().Set("X-ClickHouse-Format", req.format)
				w.Header().Set("X-ClickHouse-Exception-Tag", tag)
			}
			sent = true
			err = send(w, piece)
			if err != nil {
				return errClientLeft
			}
		}
	})
	if sent && err != nil {
		return h.broken(err)
	}
	return err
}

// errClientLeft ends a stream that nobody reads any more.
var errClientLeft = errors.New("the client left")

// errReported marks an answer that was broken off with its error in it.
var errReported = errors.New("the answer broke off")

// send writes one piece of a result and frees it.
func send(w http.ResponseWriter, piece result) error {
	defer piece.free()
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	_, err := w.Write(piece.bytes())
	return err //nolint:wrapcheck // Only whether it failed is of interest.
}

// late reports an error of a stream: as the answer if nothing was sent yet, else
// in the frame that clients look for in a body that ends badly.
func (h *handler) late(ctx context.Context, w http.ResponseWriter, sent bool, tag string, err error) error {
	if !sent {
		return err
	}
	h.tell(err)
	text := asException(err).text
	frame := fmt.Sprintf("\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n", tag, text, len(text), tag)
	h.write(ctx, w, []byte(frame))
	return errReported
}

// broken ends the connection without ending the body.
func (h *handler) broken(err error) error {
	if errors.Is(err, errClientLeft) || errors.Is(err, errReported) {
		h.aborted()
	}
	return err
}

// write sends a short text; that the client left is no fault.
func (h *handler) write(ctx context.Context, w http.ResponseWriter, text []byte) {
	if _, err := w.Write(text); err != nil {
		h.logger.DebugContext(ctx, "client_left", slog.Any("error", err))
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		h.logger.DebugContext(ctx, "client_left", slog.Any("error", err))
	}
}

// fail answers with an exception the way ClickHouse does.
func (h *handler) fail(ctx context.Context, w http.ResponseWriter, err error) {
	e := asException(err)
	w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(http.StatusInternalServerError)
	h.write(ctx, w, []byte(e.text+" (version embedded)\n"))
}
