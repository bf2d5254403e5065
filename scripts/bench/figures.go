package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one thing that is measured, with what issue 3 wants to be reached, if it says.
type figure struct {
	name string
	unit string
	// goal is what is to be reached; 0 for none. less says that lower is better.
	goal float64
	less bool
	runs []float64
}

// figures are what a run has measured, in the order in which it was first seen.
type figures struct{ list []*figure }

// add records one run of a figure.
func (f *figures) add(want figure, value float64) {
	for _, have := range f.list {
		if have.name == want.name {
			have.runs = append(have.runs, value)
			return
		}
	}
	want.runs = []float64{value}
	f.list = append(f.list, &want)
}

// median returns the middle run; of an even number the lower.
func (f *figure) median() float64 {
	runs := slices.Sorted(slices.Values(f.runs))
	return runs[(len(runs)-1)/2]
}

// reached reports whether the median is as good as the goal.
func (f *figure) reached() bool {
	if f.less {
		return f.median() <= f.goal
	}
	return f.median() >= f.goal
}

// goalText says what is to be reached.
func (f *figure) goalText() string {
	switch {
	case f.goal == 0:
		return ""
	case f.less:
		return "≤ " + number(f.goal)
	}
	return "≥ " + number(f.goal)
}

// missed returns the names of the figures whose goal was not reached.
func (f *figures) missed() []string {
	var out []string
	for _, x := range f.list {
		if x.goal != 0 && !x.reached() {
			out = append(out, x.name)
		}
	}
	return out
}

// print writes the table: the median of each figure beside its goal and its runs.
func (f *figures) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	if _, err := fmt.Fprintln(w, "what\tmedian\tunit\tto reach\t\truns"); err != nil {
		return err
	}
	for _, x := range f.list {
		verdict := ""
		if x.goal != 0 {
			verdict = map[bool]string{true: "reached", false: "MISSED"}[x.reached()]
		}
		runs := make([]string, len(x.runs))
		for i, v := range x.runs {
			runs[i] = number(v)
		}
		if _, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", x.name, number(x.median()), x.unit, x.goalText(), verdict, strings.Join(runs, " ")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// number writes v for people: three digits that count, or all before the point.
func number(v float64) string {
	switch {
	case v >= 100:
		return grouped(fmt.Sprintf("%.0f", v))
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// grouped puts a comma before every three digits from the right.
func grouped(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
