package eventstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// A backup is the log without its tables: all events in order, in pieces, and what
// they must add up to.
//
//	"KTBACKUP" 1
//	piece:    4 bytes of frames (not 0), 4 events, 4 CRC-32C of the frames, the frames
//	…
//	end:      4 zero, 8 events, 8 position of the last, 32 SHA-256 of all before the hash
//
// All integers are big-endian; frames are those of a block.
const backupMagic = "KTBACKUP\x01"

// pieceBytesMax bounds a piece that is read: a block of one append of the greatest
// size.
const pieceBytesMax = 32 << 20

// Backup writes the log in dir to w as one state of it, whole commits only. The folder
// may be in use by this process or another; writing goes on meanwhile. Every block is
// checked on the way. What w received is a backup only if Backup returned nil.
func Backup(ctx context.Context, dir string, w io.Writer) (_ Report, err error) {
	v, err := openView(ctx, dir)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	b := &backup{hash: sha256.New(), streams: make(map[string]uint64)}
	b.to = bufio.NewWriterSize(io.MultiWriter(w, b.hash), 1<<20)
	if _, err := b.to.WriteString(backupMagic); err != nil {
		return Report{}, fmt.Errorf("write backup: %w", err)
	}
	if err := v.blocks(ctx, 0, b.piece); err != nil {
		return b.report, err
	}
	end := binary.BigEndian.AppendUint32(nil, 0)
	end = binary.BigEndian.AppendUint64(end, uint64(b.report.Events)) //nolint:gosec // A count.
	end = binary.BigEndian.AppendUint64(end, b.report.Last)
	if _, err := b.to.Write(end); err != nil {
		return b.report, fmt.Errorf("write backup: %w", err)
	}
	if err := b.to.Flush(); err != nil {
		return b.report, fmt.Errorf("write backup: %w", err)
	}
	if _, err := w.Write(b.hash.Sum(nil)); err != nil {
		return b.report, fmt.Errorf("write backup: %w", err)
	}
	b.report.Streams = len(b.streams)
	return b.report, nil
}

// backup is a backup being written.
type backup struct {
	to      *bufio.Writer
	hash    hash.Hash
	report  Report
	streams map[string]uint64 // The next revision of each.
	frames  []frame
}

// piece writes one block, once it is seen to go on where the log is.
func (b *backup) piece(p *block) error {
	var err error
	if b.frames, err = p.frames(b.frames); err != nil {
		return err
	}
	for _, f := range b.frames {
		if f.pos <= b.report.Last {
			return fmt.Errorf("%w: event at position %d after %d", errCorrupt, f.pos, b.report.Last)
		}
		if next, ok := b.streams[string(f.stream)]; ok && f.rev != next && f.rev != revisionMax {
			return fmt.Errorf("%w: stream %s goes on at revision %d (position %d) instead of %d", errCorrupt, f.stream, f.rev, f.pos, next)
		}
		b.streams[string(f.stream)] = f.rev + 1
		b.report.Last = f.pos
		b.report.Events++
	}
	if len(p.body) == 0 {
		return nil
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(p.body))) //nolint:gosec // Bounded by the append limit.
	head = binary.BigEndian.AppendUint32(head, uint32(p.n))         //nolint:gosec // A count.
	head = binary.BigEndian.AppendUint32(head, p.checksum())
	if _, err := b.to.Write(head); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if _, err := b.to.Write(p.body); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// Restore makes the log in dir, which must not exist or be empty, out of a backup. It
// is checked from end to end before the folder can be opened: when Restore returns an
// error there is nothing in dir, or, after a crash, what no program opens.
func Restore(ctx context.Context, r io.Reader, dir string) (_ Report, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Report{}, fmt.Errorf("restore: %w", err)
	}
	// It is built beside, and gets its place when it is whole.
	building := filepath.Join(dir, "restoring")
	if err := os.RemoveAll(building); err != nil { // Of a restore that was broken off.
		return Report{}, fmt.Errorf("restore: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Report{}, fmt.Errorf("restore: %w", err)
	}
	if len(entries) > 0 {
		return Report{}, fmt.Errorf("restore: %s is not empty (%s): choose a new folder, or move what is there away", dir, entries[0].Name())
	}
	if err := os.Mkdir(building, 0o700); err != nil {
		return Report{}, fmt.Errorf("restore: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(building))
		}
	}()
	want, err := restoreInto(ctx, r, building)
	if err != nil {
		return Report{}, fmt.Errorf("restore: %w", err)
	}
	got, err := Verify(ctx, building)
	if err != nil {
		return Report{}, fmt.Errorf("restore: %w", err)
	}
	if got.Events != want.Events || got.Last != want.Last {
		return Report{}, fmt.Errorf("restore: %w: the log has %d events up to position %d, the backup %d up to %d", errCorrupt, got.Events, got.Last, want.Events, want.Last)
	}
	if err := os.Rename(filepath.Join(building, databaseFile), filepath.Join(dir, databaseFile)); err != nil {
		return Report{}, fmt.Errorf("restore: %w", err)
	}
	if err := os.RemoveAll(building); err != nil {
		return Report{}, fmt.Errorf("restore: %w", err)
	}
	return got, syncFolder(dir)
}

// restoreInto makes a log in dir, and returns what the backup says it has to hold.
func restoreInto(ctx context.Context, r io.Reader, dir string) (_ Report, err error) {
	cfg := Config{Dir: dir, Files: osFiles{}, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)}
	cfg.setDefaults()
	s, err := openStore(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	go s.folder.run(ctx)
	close(s.writer.stopped) // This goroutine is the writer,
	close(s.scavenger.done) // and nothing is scavenged.
	report, err := s.writer.restoreFrom(ctx, r)
	return report, errors.Join(err, s.close(context.WithoutCancel(ctx)))
}

// restoreFrom takes the events of a backup for what they are: commits.
func (w *writer) restoreFrom(ctx context.Context, r io.Reader) (Report, error) {
	hash := sha256.New()
	in := bufio.NewReaderSize(r, 1<<20)
	from := io.TeeReader(in, hash)
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(from, magic); err != nil || string(magic) != backupMagic {
		return Report{}, errors.Join(errors.New("this is no backup of an event log, or one of a newer program"), err)
	}
	events := 0
	for {
		body, n, err := readPiece(from)
		if err != nil {
			return Report{}, err
		}
		if body == nil {
			break
		}
		if err := ctx.Err(); err != nil {
			return Report{}, err
		}
		g, err := w.regroup(ctx, record{body: body, events: n})
		if err != nil {
			return Report{}, err
		}
		events += n
		w.journal.seq++ // No record: nobody was told that it is stored.
		w.adopt(g, 0)
		for w.folder.full() {
			if err := w.folder.fold(ctx); err != nil {
				return Report{}, err
			}
		}
	}
	end := make([]byte, 16)
	if _, err := io.ReadFull(from, end); err != nil {
		return Report{}, fmt.Errorf("%w: the backup ends too early: %w", errCorrupt, err)
	}
	sum := make([]byte, sha256.Size)
	if _, err := io.ReadFull(in, sum); err != nil {
		return Report{}, fmt.Errorf("%w: the backup ends too early: %w", errCorrupt, err)
	}
	if !bytes.Equal(sum, hash.Sum(nil)) {
		return Report{}, fmt.Errorf("%w: the backup's checksum is wrong", errCorrupt)
	}
	want := Report{Events: int(binary.BigEndian.Uint64(end)), Last: binary.BigEndian.Uint64(end[8:])} //nolint:gosec // Compared with what was read.
	shown, _ := w.recent.head()
	if want.Events != events || want.Last != shown {
		return Report{}, fmt.Errorf("%w: the backup has %d events up to position %d, but says %d up to %d", errCorrupt, events, shown, want.Events, want.Last)
	}
	return want, nil
}

// readPiece returns the frames of the next piece, or nil at the end.
func readPiece(r io.Reader) (body []byte, events int, err error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, 0, fmt.Errorf("%w: the backup ends too early: %w", errCorrupt, err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 {
		return nil, 0, nil
	}
	if n > pieceBytesMax {
		return nil, 0, fmt.Errorf("%w: a piece of %d bytes in the backup", errCorrupt, n)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return nil, 0, fmt.Errorf("%w: the backup ends too early: %w", errCorrupt, err)
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, 0, fmt.Errorf("%w: the backup ends too early: %w", errCorrupt, err)
	}
	if crc32.Checksum(body, castagnoli()) != binary.BigEndian.Uint32(head[8:]) {
		return nil, 0, fmt.Errorf("%w: a piece of the backup has the wrong checksum", errCorrupt)
	}
	return body, int(binary.BigEndian.Uint32(head[4:])), nil
}
