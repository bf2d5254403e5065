// Package enginelib brings the analytics engine's library to this machine: the
// pinned libchdb, from its npm package, checked against digests written down in
// this package, kept in a cache folder.
//
// It goes through the npm client, so that a mirror, a proxy or credentials are
// configured where they always are, and it runs nothing that it fetched.
package enginelib
