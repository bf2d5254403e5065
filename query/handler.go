package query

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/httpx"
)

// Bounds that a caller meets.
const (
	// waitMax bounds how long an answer is held back for a position.
	waitMax = 30 * time.Second
	// answerMax bounds an answer as a whole, the waiting too; streams have their own.
	answerMax = 75 * time.Second
	// readSeconds bounds the work of the tables for one page.
	readSeconds = 30
	// cursorKeyBytesMin is the least that a cursor's authenticator is keyed with.
	cursorKeyBytesMin = 32
	defaultExportsMax = 2
)

// Store runs reads. internal/clickhouse's does.
type Store interface {
	Query(ctx context.Context, q clickhouse.Query) (clickhouse.Rows, error)
}

// Generation is one set of tables. An answer, and every page behind a cursor, is made
// of one generation.
type Generation struct {
	Name string
	// Store reads its tables. Progress says how far they are.
	Store    Store
	Progress Progress
	// Poisoned counts the events of the log that the tables could not take in; while
	// there are any, answers say that they are incomplete.
	Poisoned uint64
}

// Tables says which generation answers. It is safe for concurrent use.
type Tables interface {
	// Live returns the generation that answers now. Its error is what the caller is
	// told instead: the tables must not be read.
	Live() (Generation, error)
	// Named returns a generation that is still there, for a cursor that names it.
	Named(name string) (Generation, bool)
	// Wait returns when the generation that answers holds position, or with ctx's error.
	Wait(ctx context.Context, position uint64) error
}

// Progress says how far the tables are.
type Progress interface {
	// Completed returns the newest block that is whole in every table, the position
	// up to which the tables hold the log, and when that was so.
	Completed() (block, position uint64, at time.Time)
	// Lag is how far the tables are behind the log.
	Lag() time.Duration
	// Wait returns when the tables hold position, or with ctx's error.
	Wait(ctx context.Context, position uint64) error
}

// AccessRecorder records in the log that somebody took audit data.
type AccessRecorder interface {
	// RecordAccess returns when one [domain.AuditAccessed] for each of accounts is
	// durable. An export that cannot be recorded is not given.
	RecordAccess(ctx context.Context, who domain.Initiator, correlationID string, accounts []domain.AccountID, e domain.AuditAccessed) error
}

// RefusalRecorder records in the log that a read was refused for lack of rights.
type RefusalRecorder interface {
	// Record returns when the refusal is durable, or counted with others like it.
	Record(ctx context.Context, who domain.Initiator, correlationID string, e domain.CommandRefused) error
}

// ProjectionStatus is the state of one projection.
type ProjectionStatus struct {
	Name       string  `json:"name" description:"Name of the projection."`
	Block      string  `json:"block" description:"Newest block that is whole."`
	Position   string  `json:"position" description:"Position of the log that it holds."`
	Head       string  `json:"head" description:"Newest position of the log."`
	LagSeconds float64 `json:"lag_seconds" description:"How far it is behind the log, in seconds."`
	Poisoned   uint64  `json:"poisoned" description:"Events set aside because they could not be read."`
	// The rest is about tables only.
	Generation      string            `json:"generation,omitempty" description:"The set of tables that answers."`
	State           string            `json:"state,omitempty" enum:"unknown,complete,behind" description:"Whether they hold all of the log."`
	Events          uint64            `json:"events,omitempty" description:"Events of the log that they hold."`
	Rows            map[string]uint64 `json:"rows,omitempty" description:"Rows written, by table."`
	EventsPerSecond float64           `json:"events_per_second,omitempty" description:"Rate of the last seconds."`
	Planned         string            `json:"planned,omitempty" description:"The block that is being written."`
	Attempt         uint64            `json:"attempt,omitempty" description:"How often that block was begun anew."`
	Holder          string            `json:"holder,omitempty" description:"The worker that wrote the ledger last."`
	Runner          string            `json:"runner,omitempty" enum:"stopped,waiting,redoing,active,failing" description:"What the worker of this node does."`
	RollupsPending  int               `json:"rollups_pending,omitempty" description:"Hours whose rollup this node is to compute."`
	Fault           string            `json:"fault,omitempty" description:"That something is wrong at this node; the operator's log says what."`
}

// Projections reports on all projections.
type Projections interface {
	Projections(ctx context.Context) ([]ProjectionStatus, error)
}

// Check is one thing that must hold for the program to serve.
type Check struct {
	Name string
	// Degrades says that the program serves without it, though less than all.
	Degrades bool
	Run      func(ctx context.Context) error
}

// Config says what a [Handler] works with. All fields but the noted ones must be set.
type Config struct {
	Tables      Tables
	Projections Projections
	Access      AccessRecorder
	Refusals    RefusalRecorder
	// CursorKey keys the authenticators of cursors: 32 bytes or more, the same on all
	// nodes. It is copied.
	CursorKey []byte
	// Checks decide whether the program is ready. May be empty.
	Checks []Check
	// Metrics serves /metrics. Nil: there is none.
	Metrics http.Handler
	// Others are the routes of the other rooms, for the API's description. May be
	// empty.
	Others []apidoc.Table
	// Version goes into the API's description.
	Version string
	// ExportsMax bounds the exports under way at once, each of which holds two
	// connections to the store; 0 means 2.
	ExportsMax int
	// Now is the clock.
	Now    func() time.Time
	Logger *slog.Logger
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	var errs []error
	for name, missing := range map[string]bool{
		"tables": c.Tables == nil, "projections": c.Projections == nil,
		"access recorder": c.Access == nil, "refusal recorder": c.Refusals == nil, "clock": c.Now == nil, "logger": c.Logger == nil,
	} {
		if missing {
			errs = append(errs, fmt.Errorf("no %s is given", name))
		}
	}
	if len(c.CursorKey) < cursorKeyBytesMin {
		errs = append(errs, fmt.Errorf("the cursor key has %d bytes, not %d or more", len(c.CursorKey), cursorKeyBytesMin))
	}
	if c.ExportsMax < 0 {
		errs = append(errs, fmt.Errorf("exports max %d is negative", c.ExportsMax))
	}
	return errors.Join(errs...)
}

// Handler serves the read side. It is safe for concurrent use and starts no goroutine
// that outlives a request.
type Handler struct {
	cfg      Config
	cursors  cursorCodec
	exports  chan struct{} // One token for each export under way.
	document []byte
}

// New returns a handler, its API description made.
func New(cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("query: config: %w", err)
	}
	if cfg.ExportsMax == 0 {
		cfg.ExportsMax = defaultExportsMax
	}
	h := &Handler{
		cfg: cfg, cursors: cursorCodec{key: sha256.Sum256(append([]byte("keytrail cursor v1\x00"), cfg.CursorKey...))},
		exports: make(chan struct{}, cfg.ExportsMax),
	}
	var err error
	h.document, err = apidoc.Document(apidoc.Info{
		Title: "keytrail", Version: cfg.Version, Error: httpx.ErrorBody{},
		Description: "Audit and activity tracker for API keys. Every answer of the read side states in Keytrail-Position the log position " +
			"that it is of, and in Keytrail-Lag how far that is behind the log.",
	}, append([]apidoc.Table{h.Routes(), h.PublicRoutes()}, cfg.Others...)...)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return h, nil
}

// Register adds the routes that need a credential; r must authenticate.
func (h *Handler) Register(r gin.IRoutes) { h.Routes().Register(r) }

// RegisterPublic adds the routes that need none.
func (h *Handler) RegisterPublic(r gin.IRoutes) { h.PublicRoutes().Register(r) }

// view is what one request may see: whose rows, up to where.
type view struct {
	who auth.Caller
	now time.Time
	// tables is the generation that the whole answer is made of.
	tables Generation
	// block and position are the newest that the tables held as a whole when the
	// request came.
	block, position uint64
}

// viewHandler answers a request, or returns why it does not.
type viewHandler func(*gin.Context, view) error

// fresh makes a handler of f: it waits for the position that the caller names, fixes
// the view and states it in the answer's headers.
func (h *Handler) fresh(f viewHandler) gin.HandlerFunc {
	streaming := h.stream(f)
	return func(c *gin.Context) {
		ctx, cancel := context.WithTimeout(c.Request.Context(), answerMax)
		defer cancel()
		c.Request = c.Request.WithContext(ctx)
		if err := patience(c, answerMax+time.Second); err != nil {
			httpx.Fail(c, err)
			return
		}
		streaming(c)
	}
}

// patience gives the connection's reader that long from now. A writer that knows no
// deadlines needs none.
func patience(c *gin.Context, d time.Duration) error {
	err := http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(d))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("move the deadline: %w", err)
	}
	return nil
}

// stream is fresh for an answer that may take any time.
func (h *Handler) stream(f viewHandler) gin.HandlerFunc {
	return func(c *gin.Context) {
		v, err := h.view(c)
		if err == nil {
			err = f(c, v)
		}
		if err != nil {
			httpx.Fail(c, worded(h.refused(c, err)))
		}
	}
}

// refused records that a right was missing, and returns what to answer: err, or that it
// could not be recorded.
func (h *Handler) refused(c *gin.Context, err error) error {
	refusal, ok := errors.AsType[*domain.Error](err)
	if !ok || refusal.Code != domain.Forbidden {
		return err
	}
	caller := auth.CallerOf(c)
	e := domain.CommandRefused{
		Action: actionOf(c.FullPath()), Account: caller.Initiator.Account, Status: httpx.Status(refusal.Code), Code: refusal.Code, Reason: refusal.Error(),
	}
	if named := domain.AccountID(c.Query("account_id")); caller.Standing(named).Known() {
		e.Account, e.TargetName = named, string(named)
	}
	if recordErr := h.cfg.Refusals.Record(c.Request.Context(), caller.Initiator, httpx.Trace(c), e); recordErr != nil {
		return fmt.Errorf("record a refusal: %w", recordErr)
	}
	return err
}

// actionOf names what a route of this room does.
func actionOf(path string) string {
	switch path {
	case "/v1/events", "/v1/findings":
		return domain.ActionActivitySearch
	case "/v1/events/export":
		return actionExport
	}
	return domain.ActionActivityRead
}

func (h *Handler) view(c *gin.Context) (view, error) {
	wanted, ok, err := httpx.WaitPosition(c)
	if err != nil {
		return view{}, err //nolint:wrapcheck // It is the caller's error, worded.
	}
	if ok {
		if err := wait(c.Request.Context(), h.cfg.Tables.Wait, wanted); err != nil {
			return view{}, err
		}
	}
	tables, err := h.cfg.Tables.Live()
	if err != nil {
		return view{}, err //nolint:wrapcheck // It is worded for the caller.
	}
	return h.viewOf(c, tables), nil
}

// viewOf fixes what a request sees of tables and states it in the answer's headers.
func (h *Handler) viewOf(c *gin.Context, tables Generation) view {
	v := view{who: auth.CallerOf(c), now: h.cfg.Now().UTC(), tables: tables}
	v.block, v.position, _ = tables.Progress.Completed()
	httpx.Position(c, v.position)
	httpx.Lag(c, tables.Progress.Lag())
	if tables.Poisoned > 0 {
		c.Header("Keytrail-Incomplete", strconv.FormatUint(tables.Poisoned, 10))
	}
	return v
}

// wait holds until the tables that f waits for have position, at most for waitMax.
func wait(ctx context.Context, f func(ctx context.Context, position uint64) error, position uint64) error {
	ctx, cancel := context.WithTimeout(ctx, waitMax)
	defer cancel()
	if err := f(ctx, position); err != nil {
		refusal := domain.Errorf(domain.Unavailable, "the tables do not hold position %d yet", position).WithMessageCode("position_not_reached")
		return fmt.Errorf("%w: %w", refusal, err)
	}
	return nil
}

// worded gives the store's errors a code and a text for the caller.
func worded(err error) error {
	if domain.CodeOf(err) != domain.Internal {
		return err
	}
	if exception, ok := errors.AsType[*clickhouse.Error](err); ok {
		switch exception.Code {
		case clickhouse.CodeTimeoutExceeded, clickhouse.CodeMemoryLimit:
			refusal := domain.Errorf(domain.Unavailable, "the question takes too long; narrow its time range or its filter")
			return fmt.Errorf("%w: %w", refusal.WithMessageCode("question_too_large"), err)
		}
	}
	if errors.Is(err, clickhouse.ErrUnavailable) {
		return fmt.Errorf("%w: %w", domain.Errorf(domain.Unavailable, "the tables do not answer").WithMessageCode("tables_unavailable"), err)
	}
	return err
}

// accounts returns the accounts that the caller may read: all of them, or the one
// that is named. A named one in which the caller is nobody does not exist.
func (v view) accounts(named string) ([]domain.AccountID, error) {
	if named == "" {
		return v.who.Accounts(domain.RightRead), nil
	}
	id := domain.AccountID(named)
	in := domain.Standing{}
	if domain.ValidID(named) {
		in = v.who.Standing(id)
	}
	if err := domain.AuthorizeAccount(v.who.Initiator, in, domain.RightRead); err != nil {
		if e, ok := errors.AsType[*domain.Error](err); ok && e.Code == domain.NotFound {
			return nil, e.WithField("account_id")
		}
		return nil, err //nolint:wrapcheck // The domain's words are the answer.
	}
	return []domain.AccountID{id}, nil
}

// scopeOf returns the scope of accounts; of none, nothing is seen.
func scopeOf(accounts []domain.AccountID) clickhouse.Scope {
	ids := make([]string, len(accounts))
	for i, a := range accounts {
		ids[i] = string(a)
	}
	return clickhouse.ScopeAccounts(ids...)
}

// readSettings bound what one page may cost the store.
func readSettings() map[string]any {
	return map[string]any{"max_execution_time": readSeconds}
}
