// Package web holds the console: the page at / and its files, made by npm from src
// into dist and built into the program, so that neither building nor running it needs
// npm or any other host. 'make web' makes dist anew; a test holds it to its form.
//
// It serves static files and knows nothing else: the page is an ordinary client of the
// API, with the key that its reader pastes.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"time"
)

//go:embed dist
var dist embed.FS

// policy lets the page load its own files and call its own origin, and nothing else:
// no script in the page, no other host, no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// file is one file of the console.
type file struct {
	name, contentType, tag string
	data                   []byte
}

// Paths returns the paths that [Handler] serves.
func Paths() []string {
	return slices.Sorted(maps.Keys(files()))
}

// Handler serves the console's files at [Paths], and 404 elsewhere. Browsers may keep
// them but must ask whether they are still the same.
func Handler() http.Handler {
	all := files()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := all[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", f.contentType)
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", f.tag)
		http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.data))
	})
}

// files returns the files of dist by their path; index.html is the page at /.
func files() map[string]file {
	out := map[string]file{}
	names, err := fs.Glob(dist, "dist/*")
	if err != nil {
		panic(err) // The pattern is constant and well formed.
	}
	for _, name := range names {
		data, err := dist.ReadFile(name)
		if err != nil {
			panic(err) // The file is part of the program.
		}
		sum := sha256.Sum256(data)
		f := file{name: path.Base(name), contentType: contentType(name), data: data, tag: `"` + hex.EncodeToString(sum[:16]) + `"`}
		at := "/" + f.name
		if f.name == "index.html" {
			at = "/"
		}
		out[at] = f
	}
	return out
}

// contentType goes by the name alone, so that it is the same on every machine.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "text/plain; charset=utf-8"
}
