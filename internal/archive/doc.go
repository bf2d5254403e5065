// Package archive keeps the events of a sealed range of a usage stream in a file: every
// event whole, so that tables can be made and checked from it as from the log.
//
// It knows the file's format (docs/formats.md has it byte by byte), a folder of such
// files, and how to read which ranges were sealed. It does not decide what is sealed or
// cut, and never deletes a file.
//
// A file is written under another name, fsynced, renamed, and its folder fsynced, before
// its name is told. It is read as a stream: memory is bounded by one block. What is
// damaged is an error that names the file, never a shorter file.
package archive
