package main

import (
	"fmt"
	"net/http"

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

// administrators lets only administrators of the operator's account pass.
func (a *app) administrators(f func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		err := error(domain.Errorf(domain.Forbidden, "only an administrator of the operator's account may do that"))
		if auth.CallerOf(c).Can(domain.RightAssign, a.directory.Home()) {
			err = f(c)
		}
		if err != nil {
			httpx.Fail(c, err)
		}
	}
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
