package query

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/filter"
)

const (
	// pointsMax bounds the points of one answer, over all its series.
	pointsMax = 10_000
	// defaultHours is the range of a question that names none.
	defaultHours = 24
)

// UsageScope is what every question about uses can be narrowed by.
type UsageScope struct {
	Span
	Account string `query:"account_id" maxLength:"128" description:"Only this account; else all that the caller may read."`
	Key     string `query:"key_id" maxLength:"128" description:"Only uses of this key."`
	IAM     string `query:"iam_id" maxLength:"128" description:"Only uses by this identity."`
	Action  string `query:"action" maxLength:"256" description:"Only this action."`
	Filter  string `query:"filter" maxLength:"8192" description:"AIP-160 filter over the use's record. With a filter the uses themselves are read, not the rollups."`
}

// counting turns the parameters into a question without groups.
func (r UsageScope) counting(v view) (counting, error) {
	accounts, err := v.accounts(r.Account)
	if err != nil {
		return counting{}, err
	}
	q := counting{tables: v.tables, scope: scopeOf(accounts), block: v.block, position: v.position}
	if q.from, q.to, err = r.times(v.now); err != nil {
		return q, err
	}
	if q.to.IsZero() {
		q.to = v.now.Truncate(time.Millisecond)
	}
	if q.from.IsZero() {
		q.from = q.to.Add(-defaultHours * time.Hour)
	}
	if q.to.Before(q.from) {
		return q, domain.Errorf(domain.Invalid, "lies after to").WithField("from").WithMessageCode("invalid_range")
	}
	for _, p := range []struct{ column, value string }{{"key_id", r.Key}, {"iam_id", r.IAM}, {"action", r.Action}} {
		if p.value != "" {
			q.where = append(q.where, clickhouse.Eq(p.column, p.value))
		}
	}
	parsed, err := filter.Parse(r.Filter)
	if err != nil {
		return q, filterError(err)
	}
	if !parsed.IsEmpty() {
		matches, err := parsed.Cond(filter.Usage(v.now))
		if err != nil {
			return q, filterError(err)
		}
		q.baseWhere = append(q.baseWhere, matches)
	}
	return q, nil
}

// dimension is what uses can be counted by: an expression over the base table and,
// where the rollup has it, one over that.
type dimension struct{ base, rollup string }

func dimensionOf(name string) (dimension, bool) {
	switch name {
	case "key":
		return dimension{base: "toString(key_id)", rollup: "toString(key_id)"}, true
	case "identity":
		return dimension{base: "toString(iam_id)", rollup: "toString(iam_id)"}, true
	case "action":
		return dimension{base: "toString(action)", rollup: "toString(action)"}, true
	case "address":
		return dimension{base: "toString(source)"}, true
	case "network", "country", "region", "outcome":
		return dimension{base: "toString(" + name + ")"}, true
	case "agent":
		return dimension{base: "toString(user_agent)"}, true
	}
	return dimension{}, false
}

// SeriesRequest asks how many uses there were over time.
type SeriesRequest struct {
	Fresh
	UsageScope
	Step  string `query:"step" enum:"minute,hour,day,month" default:"hour" description:"Length of a point, in UTC."`
	By    string `query:"by" enum:"key,identity,action,address,network,agent,country,region,outcome" description:"Also one series for each of the most frequent values of this."`
	Limit int    `query:"limit" minimum:"1" maximum:"50" default:"10" description:"How many values of by."`
}

// Point is the uses in one step of time.
type Point struct {
	Time      time.Time `json:"time" description:"Beginning of the step, UTC."`
	Count     uint64    `json:"count" description:"Uses."`
	Failures  uint64    `json:"failures" description:"Uses that failed."`
	Addresses uint64    `json:"addresses" description:"Distinct source addresses."`
}

// Group is the series of one value.
type Group struct {
	Value  string  `json:"value" description:"The value; empty where the use has none."`
	Series []Point `json:"series"`
}

// SeriesAnswer holds a point for every step from the one that from lies in to the last
// that begins before to, zero ones too. The first and the last may be cut by the range.
type SeriesAnswer struct {
	Stated
	Series []Point `json:"series"`
	Groups []Group `json:"groups,omitempty" description:"With by: the most frequent values, most frequent first."`
}

// step is a length of points.
type step struct {
	// base and rollup give the point's beginning, in seconds since 1970. The rollup
	// has none for steps shorter than its own.
	base, rollup string
	begin        func(time.Time) time.Time
	next         func(time.Time) time.Time
}

func stepOf(name string) step {
	switch name {
	case "minute":
		return step{
			base: "toInt64(toUnixTimestamp(toStartOfMinute(time)))", begin: func(t time.Time) time.Time { return t.Truncate(time.Minute) },
			next: func(t time.Time) time.Time { return t.Add(time.Minute) },
		}
	case "day":
		return step{
			base: "toInt64(toUnixTimestamp(toStartOfDay(time)))", rollup: "toInt64(toUnixTimestamp(toStartOfDay(r.hour)))",
			begin: func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC) },
			next:  func(t time.Time) time.Time { return t.AddDate(0, 0, 1) },
		}
	case "month":
		return step{
			base:   "toInt64(toUnixTimestamp(toDateTime(toStartOfMonth(time), 'UTC')))",
			rollup: "toInt64(toUnixTimestamp(toDateTime(toStartOfMonth(r.hour), 'UTC')))",
			begin:  func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC) },
			next:   func(t time.Time) time.Time { return t.AddDate(0, 1, 0) },
		}
	}
	return step{
		base: "toInt64(toUnixTimestamp(toStartOfHour(time)))", rollup: "toInt64(toUnixTimestamp(r.hour))",
		begin: func(t time.Time) time.Time { return t.Truncate(time.Hour) }, next: func(t time.Time) time.Time { return t.Add(time.Hour) },
	}
}

// points returns the empty points of a range, or a refusal beyond the bound.
func (s step) points(from, to time.Time, series int) ([]Point, error) {
	var out []Point
	for t := s.begin(from); t.Before(to); t = s.next(t) {
		if len(out)*series >= pointsMax {
			return nil, domain.Errorf(domain.Invalid, "gives more than %d points in this range; take a longer step", pointsMax).
				WithField("step").WithMessageCode("too_many_points")
		}
		out = append(out, Point{Time: t})
	}
	return out, nil
}

// usageSeries answers the uses over time.
func (h *Handler) usageSeries(c *gin.Context, v view) error {
	var req SeriesRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	q, err := req.counting(v)
	if err != nil {
		return err
	}
	by, grouped := dimensionOf(req.By)
	series := 1
	if grouped {
		series += req.Limit
	}
	st := stepOf(req.Step)
	empty, err := st.points(q.from, q.to, series)
	if err != nil {
		return err
	}
	answer := SeriesAnswer{Series: empty}
	if answer.Series, err = h.series(c, q, st, empty); err != nil {
		return err
	}
	if grouped {
		if answer.Groups, err = h.groupedSeries(c, q, st, by, req.Limit, empty); err != nil {
			return err
		}
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// series fills the points of one series.
func (h *Handler) series(c *gin.Context, q counting, st step, empty []Point) ([]Point, error) {
	q.base, q.groups, q.orderBy = []string{st.base}, []string{"g1"}, []string{"g1"}
	if st.rollup != "" {
		q.rollup = []string{st.rollup}
	}
	var out []Point
	index := indexOf(empty)
	err := h.count(c.Request.Context(), q, func() { out = append(make([]Point, 0, len(empty)), empty...) },
		func(scan func(...any) (tally, error)) error {
			var begin int64
			t, err := scan(&begin)
			if err != nil {
				return err
			}
			return fill(out, index, begin, t)
		})
	return out, err
}

func indexOf(points []Point) map[int64]int {
	index := make(map[int64]int, len(points))
	for i, p := range points {
		index[p.Time.Unix()] = i
	}
	return index
}

func fill(points []Point, index map[int64]int, begin int64, t tally) error {
	i, ok := index[begin]
	if !ok {
		return fmt.Errorf("the tables count uses at %d, outside the range", begin)
	}
	points[i].Count, points[i].Failures, points[i].Addresses = t.count, t.failures, t.addresses
	return nil
}

// groupedSeries answers one series for each of the limit most frequent values of by.
func (h *Handler) groupedSeries(c *gin.Context, q counting, st step, by dimension, limit int, empty []Point) ([]Group, error) {
	top, err := h.top(c, q, by, limit)
	if err != nil || len(top) == 0 {
		return nil, err
	}
	values := make([]string, len(top))
	place := map[string]int{}
	for i, t := range top {
		values[i], place[t.Value] = t.Value, i
	}
	q.base, q.groups, q.orderBy = []string{st.base, by.base}, []string{"g1", "g2"}, []string{"g1"}
	if st.rollup != "" && by.rollup != "" {
		q.rollup = []string{st.rollup, by.rollup}
	}
	q.only = values
	var out []Group
	index := indexOf(empty)
	err = h.count(c.Request.Context(), q, func() {
		out = make([]Group, len(values))
		for i, v := range values {
			out[i] = Group{Value: v, Series: append(make([]Point, 0, len(empty)), empty...)}
		}
	}, func(scan func(...any) (tally, error)) error {
		var (
			begin int64
			value string
		)
		t, err := scan(&begin, &value)
		if err != nil {
			return err
		}
		return fill(out[place[value]].Series, index, begin, t)
	})
	return out, err
}

// TopRequest asks for the most frequent values.
type TopRequest struct {
	Fresh
	UsageScope
	By    string `query:"by" required:"true" enum:"key,identity,action,address,network,agent,country,region,outcome" description:"What to count by."`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"10" description:"How many values."`
}

// Top is one value and its uses.
type Top struct {
	Value    string `json:"value" description:"The value; empty where the use has none."`
	Count    uint64 `json:"count" description:"Uses."`
	Failures uint64 `json:"failures" description:"Uses that failed."`
}

// TopAnswer holds the most frequent values, most frequent first, equal ones in order
// of the value.
type TopAnswer struct {
	Stated
	Top []Top `json:"top"`
}

// usageTop answers the most frequent values.
func (h *Handler) usageTop(c *gin.Context, v view) error {
	var req TopRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	q, err := req.counting(v)
	if err != nil {
		return err
	}
	by, ok := dimensionOf(req.By)
	if !ok {
		return domain.Errorf(domain.Invalid, "is nothing to count by").WithField("by").WithMessageCode("unknown_value")
	}
	top, err := h.top(c, q, by, req.Limit)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, TopAnswer{Top: top})
	return nil
}

func (h *Handler) top(c *gin.Context, q counting, by dimension, limit int) ([]Top, error) {
	q.base, q.groups, q.orderBy, q.limit = []string{by.base}, []string{"g1"}, []string{"total DESC", "g1"}, limit
	if by.rollup != "" {
		q.rollup = []string{by.rollup}
	}
	var out []Top
	err := h.count(c.Request.Context(), q, func() { out = []Top{} }, func(scan func(...any) (tally, error)) error {
		var value string
		t, err := scan(&value)
		out = append(out, Top{Value: value, Count: t.count, Failures: t.failures})
		return err
	})
	return out, err
}

// HeatmapRequest asks at which hours of the week uses happen.
type HeatmapRequest struct {
	Fresh
	UsageScope
}

// Cell is one hour of the week.
type Cell struct {
	Weekday  int    `json:"weekday" description:"1 is Monday, 7 is Sunday; UTC."`
	Hour     int    `json:"hour" description:"0 to 23, UTC."`
	Count    uint64 `json:"count" description:"Uses."`
	Failures uint64 `json:"failures" description:"Uses that failed."`
}

// HeatmapAnswer holds all 168 hours of the week, Monday first.
type HeatmapAnswer struct {
	Stated
	Heatmap []Cell `json:"heatmap"`
}

const hoursOfDay, daysOfWeek = 24, 7

// usageHeatmap answers the uses by hour of the week.
func (h *Handler) usageHeatmap(c *gin.Context, v view) error {
	var req HeatmapRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	q, err := req.counting(v)
	if err != nil {
		return err
	}
	q.base, q.rollup = []string{"toDayOfWeek(time)", "toHour(time)"}, []string{"toDayOfWeek(r.hour)", "toHour(r.hour)"}
	q.groups, q.orderBy = []string{"g1", "g2"}, []string{"g1", "g2"}
	var cells []Cell
	err = h.count(c.Request.Context(), q, func() {
		cells = make([]Cell, hoursOfDay*daysOfWeek)
		for i := range cells {
			cells[i].Weekday, cells[i].Hour = i/hoursOfDay+1, i%hoursOfDay
		}
	}, func(scan func(...any) (tally, error)) error {
		var day, hour uint8
		t, err := scan(&day, &hour)
		if err != nil {
			return err
		}
		cell := &cells[(int(day)-1)*hoursOfDay+int(hour)]
		cell.Count, cell.Failures = t.count, t.failures
		return nil
	})
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, HeatmapAnswer{Heatmap: cells})
	return nil
}
