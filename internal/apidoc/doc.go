// Package apidoc keeps an API and its description one thing: a [Table] of routes
// holds each handler beside the types of what it takes and gives, [Table.Register]
// puts it into gin and [Document] makes OpenAPI 3.1 of it.
//
// A handler that is registered only through a table cannot lack documentation. The
// package decides nothing about requests: no binding, no checks, no errors.
package apidoc
