package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows people how far a long work is: a bar on a terminal, one line elsewhere.
type progress struct{ w io.Writer }

// terminal reports whether a person is watching.
func (p progress) terminal() bool {
	f, ok := p.w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// bytes returns a function that takes the bytes done and to do, and one that ends the
// show. Nothing is shown before the first call.
func (p progress) bytes(what string) (update func(done, total int64), end func()) {
	return p.show(what, progressbar.OptionShowBytes(true))
}

// count is bytes for things that are counted.
func (p progress) count(what string) (update func(done, total int64), end func()) {
	return p.show(what, progressbar.OptionShowCount())
}

// show draws to a writer that may fail: a lost line of progress is no fault of the work.
func (p progress) show(what string, opt progressbar.Option) (update func(done, total int64), end func()) {
	var bar *progressbar.ProgressBar
	update = func(done, total int64) {
		if bar == nil && p.terminal() {
			bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(what),
				progressbar.OptionClearOnFinish(), progressbar.OptionShowIts(), opt)
		}
		if bar == nil {
			bar = progressbar.NewOptions64(total, progressbar.OptionSetVisibility(false))
			p.line(what + " …")
		}
		bar.ChangeMax64(total)
		if err := bar.Set64(done); err != nil {
			p.line(fmt.Sprintf("%s: %d of %d", what, done, total))
		}
	}
	return update, func() {
		if bar == nil {
			return
		}
		if err := bar.Finish(); err != nil {
			p.line(what + ": done")
		}
	}
}

func (p progress) line(s string) { _, _ = io.WriteString(p.w, s+"\n") }

// quietLogger is for commands that print their result: only warnings are shown.
func quietLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
