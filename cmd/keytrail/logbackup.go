package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/embedded/eventstore"
)

func newLogBackup() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write a copy of the log to a file, while the server runs or not", Args: cobra.ExactArgs(1),
		Long: `backup writes one state of the log to FILE: everything that was acknowledged when the copy
began is in it, and no event is in it in part. A server may go on writing meanwhile. FILE must
not exist; "-" is the standard output.

The tables are not in it: they are made from the log. The key store and admin.key are not in it
either: they hold secrets, so copy them apart.`,
		Example: `  keytrail log backup /backup/log-2026-11-23 --data ./data
  keytrail log backup - --data ./data | zstd > log.zst`,
		RunE: func(cmd *cobra.Command, args []string) error { return backupLog(cmd, data, args[0]) },
	}
	cmd.Flags().StringVar(&data, "data", "data", "data folder")
	return cmd
}

func backupLog(cmd *cobra.Command, data, file string) (err error) {
	update, done := progress{cmd.ErrOrStderr()}.bytes("copying the log")
	defer done()
	size := folderBytes(logFolder(data))
	counted := func(w io.Writer) io.Writer { return &countingWriter{w: w, copied: copied{total: size, update: update}} }
	if file == "-" {
		report, err := eventstore.Backup(cmd.Context(), logFolder(data), counted(cmd.OutOrStdout()))
		if err != nil {
			return folderError(err)
		}
		return sayCopied(cmd.ErrOrStderr(), "backed up", report)
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists: name a file that does not", file)
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return fmt.Errorf("make backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	report, err := eventstore.Backup(cmd.Context(), logFolder(data), counted(f))
	if err != nil {
		return folderError(err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync backup: %w", err)
	}
	if err := os.Link(f.Name(), file); err != nil { // Unlike a rename it never replaces a file.
		return fmt.Errorf("name backup: %w", err)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name()), syncFolder(filepath.Dir(file))); err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	done()
	return sayCopied(cmd.OutOrStdout(), "backed up", report)
}

// syncFolder makes the names of new files in dir durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func sayCopied(out io.Writer, what string, r eventstore.Report) error {
	if _, err := fmt.Fprintf(out, "%s %d events of %d streams, up to position %d\n", what, r.Events, r.Streams, r.Last); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}

// folderBytes estimates how much there is to copy.
func folderBytes(dir string) (total int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0 // The copy itself will say what is wrong.
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
	}
	return total
}

// copied tells how far a copy is.
type copied struct {
	done, total int64
	update      func(done, total int64)
}

func (c *copied) add(n int) {
	c.done += int64(n)
	c.update(c.done, max(c.done, c.total))
}

// countingWriter counts what is written to w.
type countingWriter struct {
	w io.Writer
	copied
}

// Write implements [io.Writer].
func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.add(n)
	return n, err
}

// countingReader counts what is read from r.
type countingReader struct {
	r io.Reader
	copied
}

// Read implements [io.Reader].
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.add(n)
	return n, err
}

func newLogRestore() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make the log of a new data folder from a backup", Args: cobra.ExactArgs(1),
		Long: `restore makes the log in a data folder that has none. Put the key store and admin.key that
belong to it beside, then start a server on the folder: it makes the tables anew. "-" is the
standard input.`,
		Example: `  keytrail log restore /backup/log-2026-11-23 --data ./restored
  cp -a ./data/keystore ./data/master.key ./data/admin.key ./restored/
  keytrail serve --data ./restored`,
		RunE: func(cmd *cobra.Command, args []string) error { return restoreLog(cmd, data, args[0]) },
	}
	cmd.Flags().StringVar(&data, "data", "", "data folder to restore to")
	if err := cmd.MarkFlagRequired("data"); err != nil {
		panic(err) // The flag is there.
	}
	return cmd
}

func restoreLog(cmd *cobra.Command, data, file string) (err error) {
	in, size := cmd.InOrStdin(), int64(0)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("open backup: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if info, err := f.Stat(); err == nil {
			size = info.Size()
		}
		in = f
	}
	if err := makePrivate(data); err != nil {
		return err
	}
	update, done := progress{cmd.ErrOrStderr()}.bytes("restoring the log")
	defer done()
	report, err := eventstore.Restore(cmd.Context(), &countingReader{r: in, copied: copied{total: size, update: update}}, logFolder(data))
	if err != nil {
		return err
	}
	done()
	return sayCopied(cmd.OutOrStdout(), "restored", report)
}
