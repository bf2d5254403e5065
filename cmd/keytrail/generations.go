package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/projections"
)

// generationsPath is the collection of sets of tables.
const generationsPath = "/v1/projections/generations"

// generationView is one set of tables as the API tells it.
type generationView struct {
	Name            string                  `json:"name" description:"Name of the set of tables."`
	State           string                  `json:"state" enum:"building,differs,live,retired,dropped" description:"building: made from the log; differs: compared, and not accepted; live: answers; retired: answered before; dropped: removed."`
	Accepted        bool                    `json:"accept_differences" description:"Whether differences do not stand in the way."`
	Block           string                  `json:"block" description:"Newest block that is whole."`
	Position        string                  `json:"position" description:"Position of the log that it holds."`
	Head            string                  `json:"head" description:"Newest position of the log."`
	Events          uint64                  `json:"events" description:"Events of the log that it holds."`
	Rows            map[string]uint64       `json:"rows,omitempty" description:"Rows written, by table."`
	EventsPerSecond float64                 `json:"events_per_second" description:"Rate of the last seconds."`
	LagSeconds      float64                 `json:"lag_seconds" description:"How far it is behind the log, in seconds."`
	Poisoned        uint64                  `json:"poisoned" description:"Events set aside because they could not be read."`
	Holder          string                  `json:"holder,omitempty" description:"The worker that wrote its ledger last."`
	Planned         uint64                  `json:"planned,omitempty" description:"The block that is being written."`
	Attempt         uint64                  `json:"attempt,omitempty" description:"How often that block was begun anew."`
	Runner          string                  `json:"runner,omitempty" description:"What the worker of this node does about it."`
	Fault           string                  `json:"fault,omitempty" description:"What keeps this node from it; for operators."`
	ReplayDone      uint64                  `json:"replay_done,omitempty" description:"The newest request to replay that was carried out."`
	Compared        *projections.Comparison `json:"compared,omitempty" description:"The newest comparison with the live tables."`
}

// generationsAnswer lists every set of tables.
type generationsAnswer struct {
	Generations []generationView `json:"generations"`
}

// rebuildRequest asks for new tables.
type rebuildRequest struct {
	Name   string `json:"name" minLength:"1" maxLength:"32" description:"Name of the new set: a-z, 0-9 and _. A name is used once."`
	Accept bool   `json:"accept_differences,omitempty" description:"Take over even if the comparison finds differences; they are recorded."`
}

// generationRequest names a set of tables.
type generationRequest struct {
	Name string `path:"name" maxLength:"32" description:"Name of the set of tables."`
}

// generationRoutes serve the making of new tables, for the operator's administrators.
func (a *app) generationRoutes() apidoc.Table {
	return apidoc.Table{
		{
			Method: http.MethodGet, Path: generationsPath, Group: "operation", Summary: "The sets of tables.",
			Description: "Which sets of tables there are, how far each is, and which one answers.",
			Answers:     apidoc.OK(generationsAnswer{}), Handler: a.administrators(a.listGenerations),
		},
		{
			Method: http.MethodPost, Path: generationsPath, Group: "operation", Summary: "Make the tables anew.",
			Description: "New tables are made from the log beside the live ones, compared with them, and swapped in on all nodes at once. " +
				"Asked again for the same name it changes nothing, except that accept_differences, once given, stays.",
			Request: rebuildRequest{}, Answers: []apidoc.Answer{{Status: http.StatusAccepted, Body: generationView{}}}, Handler: a.administrators(a.rebuild),
		},
		{
			Method: http.MethodDelete, Path: generationsPath + "/:name", Group: "operation", Summary: "Give up or remove a set of tables.",
			Description: "One that is being made is given up, one that answered before is removed. The live one cannot be.",
			Request:     generationRequest{}, Answers: []apidoc.Answer{{Status: http.StatusAccepted, Body: generationView{}}}, Handler: a.administrators(a.dropGeneration),
		},
	}
}

// poisonPath is the list of events that the tables could not take in.
const poisonPath = "/v1/projections/poison"

// poisonView is one event that was set aside.
type poisonView struct {
	Stream     string    `json:"stream" description:"Stream of the event."`
	Revision   string    `json:"revision" description:"Its place in the stream."`
	Position   string    `json:"position" description:"Its place in the log."`
	EventID    string    `json:"event_id" description:"Its id."`
	Type       string    `json:"type" description:"Its stored name."`
	Reason     string    `json:"reason" description:"Why it could not be read; for operators."`
	SetAsideAt time.Time `json:"set_aside_at" description:"When it was first set aside, UTC."`
}

// poisonAnswer lists what is set aside.
type poisonAnswer struct {
	Generation string       `json:"generation" description:"The set of tables that lacks the events."`
	Events     []poisonView `json:"events"`
}

// replayAnswer names a request to try again what is set aside.
type replayAnswer struct {
	Generation string `json:"generation" description:"The set of tables that is asked."`
	Request    uint64 `json:"request" description:"Number of the request: it is done when replay_done of the set of tables is not smaller."`
}

// poisonRoutes serve what is set aside, for the operator's administrators.
func (a *app) poisonRoutes() apidoc.Table {
	return apidoc.Table{
		{
			Method: http.MethodGet, Path: poisonPath, Group: "operation", Summary: "Events that the tables could not take in.",
			Description: "They are set aside, in log order; every answer made of the tables says that it is incomplete while there are any.",
			Answers:     apidoc.OK(poisonAnswer{}), Handler: a.administrators(a.listPoison),
		},
		{
			Method: http.MethodPost, Path: poisonPath + "/replay", Group: "operation", Summary: "Try again what is set aside.",
			Description: "For a program that can read what an earlier one could not. Rows are written exactly once, in blocks of their own.",
			Answers:     []apidoc.Answer{{Status: http.StatusAccepted, Body: replayAnswer{}}}, Handler: a.administrators(a.replayPoison),
		},
	}
}

func (a *app) listPoison(c *gin.Context) error {
	generation, events, err := a.tables.Poison(c.Request.Context())
	if err != nil {
		return fmt.Errorf("list what is set aside: %w", err)
	}
	answer := poisonAnswer{Generation: generation, Events: make([]poisonView, 0, len(events))}
	for _, e := range events {
		answer.Events = append(answer.Events, poisonView{
			Stream: e.Stream, Revision: number(e.Revision), Position: number(e.Position), EventID: e.EventID, Type: e.Type, Reason: e.Reason, SetAsideAt: e.SetAsideAt,
		})
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

func (a *app) replayPoison(c *gin.Context) error {
	generation, request, err := a.tables.RequestReplay(c.Request.Context(), string(auth.CallerOf(c).Initiator.IAMID))
	if err != nil {
		return fmt.Errorf("ask for a replay: %w", err)
	}
	c.JSON(http.StatusAccepted, replayAnswer{Generation: generation, Request: request})
	return nil
}

// administrators lets only administrators of the operator's account pass.
func (a *app) administrators(f func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		err := a.mayOperate(c, "operate this installation")
		if err == nil {
			err = f(c)
		}
		if err != nil {
			httpx.Fail(c, err)
		}
	}
}

// mayOperate refuses who is no administrator of the operator's account.
func (a *app) mayOperate(c *gin.Context, doing string) error {
	caller := auth.CallerOf(c)
	return domain.AuthorizeOperator(caller.Initiator, caller.Standing(a.directory.Home()), doing) //nolint:wrapcheck // The domain's words are the answer.
}

func (a *app) listGenerations(c *gin.Context) error {
	answer := generationsAnswer{Generations: []generationView{}}
	for _, g := range a.tables.Generations() {
		answer.Generations = append(answer.Generations, a.viewOf(g))
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

func (a *app) rebuild(c *gin.Context) error {
	var req rebuildRequest
	if err := httpx.BindJSON(c, &req); err != nil {
		return err //nolint:wrapcheck // It is the caller's error, worded.
	}
	if err := a.tables.Rebuild(c.Request.Context(), req.Name, string(auth.CallerOf(c).Initiator.IAMID), req.Accept); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	return a.answerGeneration(c, req.Name)
}

func (a *app) dropGeneration(c *gin.Context) error {
	name := c.Param("name")
	if err := a.tables.Drop(c.Request.Context(), name, string(auth.CallerOf(c).Initiator.IAMID)); err != nil {
		return fmt.Errorf("drop generation: %w", err)
	}
	return a.answerGeneration(c, name)
}

func (a *app) answerGeneration(c *gin.Context, name string) error {
	for _, g := range a.tables.Generations() {
		if g.Name == name {
			c.JSON(http.StatusAccepted, a.viewOf(g))
			return nil
		}
	}
	return fmt.Errorf("generation %s is not there", name)
}

// viewOf tells a generation, as far as this node knows it.
func (a *app) viewOf(g projections.Generation) generationView {
	v := generationView{Name: g.Name, State: string(g.State), Accepted: g.Accepted, Compared: g.Compared, Block: "0", Position: "0", Head: "0"}
	if g.Replayed != nil {
		v.ReplayDone = g.Replayed.Request
	}
	t, ok := a.tables.Named(g.Name)
	if !ok {
		return v
	}
	s := t.Tracker.Status()
	v.Block, v.Position, v.Head = number(s.Block), number(s.Position), number(s.Head)
	v.Events, v.Rows, v.EventsPerSecond, v.LagSeconds = s.Events, s.Rows, s.EventsPerSecond, s.Lag.Seconds()
	v.Poisoned, v.Holder, v.Planned, v.Attempt, v.Runner = s.Poisoned, s.Holder, s.Planned, s.Attempt, string(s.Runner)
	if err := t.Fault(); err != nil {
		v.Fault = err.Error()
	}
	return v
}
