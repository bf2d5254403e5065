// Package archtest holds the project to its architecture: which package may import what,
// how long files and functions may grow, and that every package says what it is for. It
// has no code of its own, only tests.
package archtest
