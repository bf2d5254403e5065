// Package filter reads filters in the grammar of AIP-160 and turns them into
// conditions of the query builder.
//
// A filter is foreign text: it is bounded, its values travel as arguments only, and
// its field names are looked up in a [FieldMap] of this program's own expressions.
// A name that no map knows is an error with its place, never an empty result.
//
// The grammar is AIP-160's with its precedence (OR binds tighter than AND, and terms
// side by side are a conjunction that binds tighter than AND). Its parser is ours,
// since Google's and einride's tokens split unquoted values such as
// iam-identity.user-apikey, -7d and 2026-01-02T03:04:05Z. What goes beyond or stays
// short of the text:
//
//   - `=` and `!=` compare whole values; `*` in the value is a wildcard, `\*` a star.
//   - `:` asks whether the value contains the text, letter case aside; with a `*` it
//     is anchored, so `create*` is a prefix; `:*` asks whether there is a value.
//   - A list is a bracket of values: action=("a" OR "b"). With `!=` it means none of.
//   - A bare word or string is looked for in the map's text columns.
//   - and, or, not in small letters are refused, since AIP-160 would take them for
//     words to search for. Functions are refused.
package filter
