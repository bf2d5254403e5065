package usagebatch

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"example.com/keytrail/domain"
)

const (
	// Version is the first byte of what [Codec.Encode] writes.
	Version = 1
	// UsesMax is the most uses that one batch holds.
	UsesMax = 1 << 16
	// BodyBytesMax bounds a batch before compression. With UsesMax it bounds what
	// decoding hostile bytes can allocate: some 100 MiB, whatever they claim.
	BodyBytesMax = 16 << 20
	// LabelsMax is the most labels that one use has.
	LabelsMax = 64

	// labelPairsMax bounds the pairs of all distinct label sets of a batch.
	labelPairsMax = 1 << 19
	columns       = 21
)

// ErrTooLarge says that the uses do not fit one batch: too many, or too many
// bytes. Half of them may fit.
var ErrTooLarge = errors.New("usage batch too large")

// ErrMalformed says that bytes are not a usage batch.
var ErrMalformed = errors.New("malformed usage batch")

// Times that a use may have: years 1 to 9999, so that every reader can print them.
const (
	timeMSMin = -62135596800000
	timeMSMax = 253402300799999
)

// Codec encodes and decodes batches and reuses what that takes. It is safe for
// concurrent use and owns no goroutine; there is nothing to close.
type Codec struct {
	zip       *zstd.Encoder
	unzip     *zstd.Decoder
	encoders  sync.Pool // of *encoder
	scratches sync.Pool // of *[]byte, bodies being decoded
}

// New returns a Codec.
func New() (*Codec, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, fmt.Errorf("usage batch compressor: %w", err)
	}
	unzip, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(BodyBytesMax), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("usage batch decompressor: %w", err)
	}
	return &Codec{zip: zip, unzip: unzip}, nil
}

// Encode returns the stored form of uses with a [Codec] of its own. Who encodes
// often keeps a Codec instead.
func Encode(uses []domain.Use) ([]byte, error) {
	c, err := New()
	if err != nil {
		return nil, err
	}
	return c.Encode(uses)
}

// Decode returns the uses that data holds, in their order, with a [Codec] of its
// own. Who decodes often keeps a Codec instead.
func Decode(data []byte) ([]domain.Use, error) {
	c, err := New()
	if err != nil {
		return nil, err
	}
	return c.Decode(data)
}

// timeMS returns t as whole milliseconds since 1970; more precision than that is
// refused, since it would be lost.
func timeMS(t time.Time) (int64, error) {
	if s := t.Unix(); s < timeMSMin/1000 || s > timeMSMax/1000 {
		return 0, fmt.Errorf("time of %d s is out of range", s)
	}
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		return 0, fmt.Errorf("time %s is finer than a millisecond", t.Format(time.RFC3339Nano))
	}
	return t.UnixMilli(), nil
}
