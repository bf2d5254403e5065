package simulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/importclient"
)

// LoadOptions says where to load the organisation.
type LoadOptions struct {
	Client *client.Client
	Config Config
	// NativeKeys is how many of keytrail's own keys are created and used besides, now.
	// Creating a key with a key is itself what key-makes-keys flags.
	NativeKeys int
	Now        func() time.Time
	// Progress, if set, is told the bytes sent and about how many there are.
	Progress func(done, total int64)
	// Notice, if set, is told what a person should know.
	Notice func(string)
}

// Summary is what was loaded.
type Summary struct {
	importclient.Report
	Attacks []Attack
	// Native are the keys of keytrail's own that were made, NativeUses their uses.
	Native     []domain.KeyID
	NativeUses uint64
}

// recordBytes is about how many bytes a record has.
const recordBytes = 620

// Load makes the organisation up and loads it into a server through its API. Loading
// the same Config again changes nothing but for new native keys.
func Load(ctx context.Context, opt LoadOptions) (Summary, error) {
	if opt.Client == nil || opt.Now == nil || opt.Config.End.IsZero() {
		return Summary{}, errors.New("simulator: a server, a clock and an end are required")
	}
	opt.Config.setDefaults()
	out := Summary{Attacks: Attacks(opt.Config)}
	records := newReader(Generate(opt.Config))
	defer records.stop()
	progress := opt.Progress
	if progress != nil {
		about := int64(opt.Config.Uses) * recordBytes
		progress = func(done, _ int64) { opt.Progress(done, max(about, done)) }
	}
	var err error
	out.Report, err = importclient.CloudTrail(ctx, importclient.Options{
		Client: opt.Client, Paths: []string{"-"}, Stdin: records, Progress: progress, Notice: opt.Notice,
	})
	if err != nil {
		return out, fmt.Errorf("load the simulated organisation: %w", err)
	}
	return out, loadNative(ctx, opt, &out)
}

// loadNative makes keys of keytrail's own and uses them.
func loadNative(ctx context.Context, opt LoadOptions, out *Summary) error {
	if opt.NativeKeys == 0 {
		return nil
	}
	var me struct {
		IAMID   string `json:"iam_id"`
		Account string `json:"account_id"`
	}
	err := opt.Client.JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/apikeys/details", Header: http.Header{"Iam-Apikey": {opt.Client.Key()}}}, nil, &me)
	if err != nil {
		return fmt.Errorf("who am I: %w", err)
	}
	var lines bytes.Buffer
	for i := range opt.NativeKeys {
		var key struct {
			ID    string `json:"id"`
			Value string `json:"apikey"`
		}
		in := map[string]string{"name": fmt.Sprintf("simulated-%d", i+1), "iam_id": me.IAMID, "account_id": me.Account}
		if err := opt.Client.JSON(ctx, client.Request{Method: http.MethodPost, Path: "/v1/apikeys"}, in, &key); err != nil {
			return fmt.Errorf("create a key: %w", err)
		}
		out.Native = append(out.Native, domain.KeyID(key.ID))
		hash := sha256.Sum256([]byte(key.Value))
		for n := range 20 {
			fmt.Fprintf(&lines, `{"time":"%s","key_hash":"%s","action":"storage.object.read","status":200,"source_ip":"198.51.100.%d","user_agent":"storage-sdk/3.2","target":"bucket-%d/part-%d"}`+"\n",
				opt.Now().UTC().Format(time.RFC3339Nano), hex.EncodeToString(hash[:]), 50+i, i, n)
		}
	}
	var answer struct {
		Accepted uint64 `json:"accepted"`
	}
	body := lines.Bytes()
	err = opt.Client.JSON(ctx, client.Request{Method: http.MethodPost, Path: "/v1/usage", Body: bytes.NewReader(body), Length: int64(len(body))}, nil, &answer)
	if err != nil {
		return fmt.Errorf("post uses: %w", err)
	}
	out.NativeUses = answer.Accepted
	return nil
}

// reader is the records as one stream, one a line.
type reader struct {
	next func() (Record, bool)
	stop func()
	rest []byte
}

func newReader(records iter.Seq[Record]) *reader {
	next, stop := iter.Pull(records)
	return &reader{next: next, stop: stop}
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(r.rest) == 0 {
			rec, ok := r.next()
			if !ok {
				if n == 0 {
					return 0, io.EOF
				}
				return n, nil
			}
			r.rest = append(append(r.rest, rec.JSON...), '\n')
		}
		c := copy(p[n:], r.rest)
		n, r.rest = n+c, r.rest[c:]
	}
	return n, nil
}
