package clickhouse

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is libchdb's C interface. Every call may block for as long as a
// statement runs, and does not hold up other goroutines.
type library struct {
	connect         func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	closeConn       func(conn unsafe.Pointer)
	query           func(conn, text unsafe.Pointer, textLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	streamQuery     func(conn, text unsafe.Pointer, textLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	fetch           func(conn, stream unsafe.Pointer) unsafe.Pointer
	cancelQuery     func(conn, stream unsafe.Pointer)
	destroyResult   func(result unsafe.Pointer)
	resultBuffer    func(result unsafe.Pointer) unsafe.Pointer
	resultLength    func(result unsafe.Pointer) uintptr
	resultError     func(result unsafe.Pointer) string
	streamInsert    func(conn, text unsafe.Pointer, textLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	insertAppend    func(insert, data unsafe.Pointer, dataLen uintptr) int32
	insertDone      func(insert unsafe.Pointer) unsafe.Pointer
	insertCancel    func(insert unsafe.Pointer)
	insertDestroy   func(insert unsafe.Pointer)
	insertError     func(insert unsafe.Pointer) string
	signalsEnabled  func(enabled int32)
	version         func() string
	engineArguments []string
}

// openLibrary loads libchdb. The process must be confined already: the library
// starts threads of its own.
func openLibrary(path, dir string) (*library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("%w: %s cannot be loaded: %w; fetch it again or give another with --engine-library", ErrLibrary, path, err)
	}
	l := &library{engineArguments: []string{"clickhouse", "--path=" + dir}}
	symbols := map[string]any{
		"chdb_connect":                     &l.connect,
		"chdb_close_conn":                  &l.closeConn,
		"chdb_query_n":                     &l.query,
		"chdb_stream_query_n":              &l.streamQuery,
		"chdb_stream_fetch_result":         &l.fetch,
		"chdb_stream_cancel_query":         &l.cancelQuery,
		"chdb_destroy_query_result":        &l.destroyResult,
		"chdb_result_buffer":               &l.resultBuffer,
		"chdb_result_length":               &l.resultLength,
		"chdb_result_error":                &l.resultError,
		"chdb_stream_insert_n":             &l.streamInsert,
		"chdb_stream_append":               &l.insertAppend,
		"chdb_stream_done":                 &l.insertDone,
		"chdb_stream_cancel_insert":        &l.insertCancel,
		"chdb_destroy_insert_stream":       &l.insertDestroy,
		"chdb_stream_insert_error":         &l.insertError,
		"chdb_set_signal_handlers_enabled": &l.signalsEnabled,
		"chdb_version":                     &l.version,
	}
	for name, function := range symbols {
		symbol, err := purego.Dlsym(handle, name)
		if err != nil {
			return nil, fmt.Errorf("%w: %s has no %s: it is not the version this program was made for", ErrLibrary, path, name)
		}
		purego.RegisterFunc(function, symbol)
	}
	// Its handlers would sleep for minutes over a crash; dying at once is what
	// the supervisor can mend.
	l.signalsEnabled(0)
	return l, nil
}

// conn is one session of the engine. It is not safe for concurrent use.
type conn struct {
	lib    *library
	handle unsafe.Pointer
}

func (l *library) open() (*conn, error) {
	texts := make([][]byte, len(l.engineArguments))
	argv := make([]unsafe.Pointer, len(texts)+1)
	for i, a := range l.engineArguments {
		texts[i] = append([]byte(a), 0)
		argv[i] = unsafe.Pointer(&texts[i][0])
	}
	handle := l.connect(int32(len(texts)), unsafe.Pointer(&argv[0])) //nolint:gosec // A few arguments of ours.
	runtime.KeepAlive(texts)
	runtime.KeepAlive(argv)
	if handle == nil {
		return nil, errors.New("the engine did not open its data folder")
	}
	return &conn{lib: l, handle: handle}, nil
}

func (c *conn) close() { c.lib.closeConn(c.handle) }

// inner is the pointer that the calls take: connect gives a pointer to it.
func (c *conn) inner() unsafe.Pointer { return *(*unsafe.Pointer)(c.handle) }

// call passes two texts to one of the engine's functions.
func (c *conn) call(f func(conn, text unsafe.Pointer, textLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer, text, format string) unsafe.Pointer {
	p := f(c.inner(), unsafe.Pointer(unsafe.StringData(text)), uintptr(len(text)),
		unsafe.Pointer(unsafe.StringData(format)), uintptr(len(format)))
	runtime.KeepAlive(text)
	runtime.KeepAlive(format)
	return p
}

// result is a buffer of the engine; bytes are valid until free.
type result struct {
	lib *library
	ptr unsafe.Pointer
}

func (r result) bytes() []byte {
	n := r.lib.resultLength(r.ptr)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(r.lib.resultBuffer(r.ptr)), n)
}

func (r result) free() { r.lib.destroyResult(r.ptr) }

// take checks a result that the engine handed out and frees one that is an error.
func (l *library) take(ptr unsafe.Pointer) (result, error) {
	if ptr == nil {
		return result{}, newException("the engine gave no result")
	}
	if text := l.resultError(ptr); text != "" {
		l.destroyResult(ptr)
		return result{}, newException(text)
	}
	return result{lib: l, ptr: ptr}, nil
}

// run carries out one statement and gives its whole output. The caller frees it.
func (c *conn) run(text, format string) (result, error) {
	return c.lib.take(c.call(c.lib.query, text, format))
}

// exec carries out a statement whose output nobody wants.
func (c *conn) exec(text string) error {
	r, err := c.run(text, "Null")
	if err != nil {
		return err
	}
	r.free()
	return nil
}

// stream is a SELECT whose output is fetched piece by piece.
type stream struct {
	conn *conn
	ptr  unsafe.Pointer
}

func (c *conn) stream(text, format string) (stream, error) {
	r, err := c.lib.take(c.call(c.lib.streamQuery, text, format))
	return stream{conn: c, ptr: r.ptr}, err
}

// next gives the next piece; false after the last. The caller frees the piece.
func (s stream) next() (result, bool, error) {
	r, err := s.conn.lib.take(s.conn.lib.fetch(s.conn.inner(), s.ptr))
	if err != nil {
		return result{}, false, err
	}
	if len(r.bytes()) == 0 {
		r.free()
		return result{}, false, nil
	}
	return r, true, nil
}

// close ends the stream; one that was not read to its end is cancelled.
func (s stream) close(atEnd bool) {
	if !atEnd {
		s.conn.lib.cancelQuery(s.conn.inner(), s.ptr)
	}
	s.conn.lib.destroyResult(s.ptr)
}

// insert is an INSERT whose data is appended piece by piece. Nothing counts until
// done says so.
type insert struct {
	lib *library
	ptr unsafe.Pointer
}

func (c *conn) insert(text, format string) (insert, error) {
	ptr := c.call(c.lib.streamInsert, text, format)
	if ptr == nil {
		return insert{}, newException("the engine began no insert")
	}
	in := insert{lib: c.lib, ptr: ptr}
	if err := in.err(); err != nil {
		c.lib.insertDestroy(ptr)
		return insert{}, err
	}
	return in, nil
}

func (in insert) err() error {
	if text := in.lib.insertError(in.ptr); text != "" {
		return newException(text)
	}
	return nil
}

func (in insert) append(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	status := in.lib.insertAppend(in.ptr, unsafe.Pointer(&data[0]), uintptr(len(data)))
	runtime.KeepAlive(data)
	if status != 0 {
		if err := in.err(); err != nil {
			return err
		}
		return newException("the engine took no more data")
	}
	return nil
}

// done ends the data, waits until the rows are in the table, and frees the insert.
func (in insert) done() error {
	defer in.lib.insertDestroy(in.ptr)
	r, err := in.lib.take(in.lib.insertDone(in.ptr))
	if err != nil {
		return err
	}
	r.free()
	return in.err()
}

// cancel drops the data and frees the insert.
func (in insert) cancel() {
	in.lib.insertCancel(in.ptr)
	in.lib.insertDestroy(in.ptr)
}
