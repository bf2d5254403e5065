package ingest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
)

// AdminKeyFile holds the first administrator's key, beside the key store.
const AdminKeyFile = "admin.key"

// BootstrapLog is what [Bootstrap] needs of the event log; [eventlog.Log] is one.
type BootstrapLog interface {
	CommandLog
	Head(ctx context.Context, prefixes []string) (uint64, error)
}

// BootstrapConfig is what [Bootstrap] needs; every field is required.
type BootstrapConfig struct {
	Dir    string // The folder of the key store, which all nodes share.
	Log    BootstrapLog
	Store  *keystore.Store
	Now    func() time.Time
	Random io.Reader
	Logger *slog.Logger
	// CreateFile writes a file durably with mode 0600, whole or not at all, unless it is
	// there already: [keystore.CreateFile].
	CreateFile func(path string, data []byte) (made bool, err error)
}

// Bootstrapped says what is there after [Bootstrap].
type Bootstrapped struct {
	Account domain.AccountID
	Owner   domain.IAMID
	KeyID   domain.KeyID
	// KeyFile is where the key was written; "" where nothing was made this time.
	KeyFile string
}

// Bootstrap gives an empty log its first account, the account's owner, and one key of
// that owner, whose value it leaves in DIR/admin.key (0600). It must have returned before the
// node serves. Their ids are derived from the key store, so that a start after a crash
// finds how far the one before it came. The order is
//
//  1. admin.key is written and synced, unless one with a whole key value is there;
//  2. the account is appended, unless its stream has events;
//  3. the key is appended, with the fingerprint of what stands in admin.key.
//
// A crash after 1 or 2 is healed by doing the rest; the key becomes valid with 3, when
// its value is already safe. After 3 nothing is ever made again, whether or not admin.key
// is still there. Of several nodes that start at once one makes each of these, and the
// others take what that one made. A log that has accounts, but not this one, belongs to
// another key store: Bootstrap refuses it, since no key in it could be verified.
func Bootstrap(ctx context.Context, cfg BootstrapConfig) (Bootstrapped, error) {
	b := bootstrapIDs(cfg.Store.InstallationID())
	keys, err := readAll(ctx, cfg.Log, domain.KeyStream(b.KeyID))
	if err != nil {
		return b, fmt.Errorf("bootstrap: %w", err)
	}
	if len(keys) > 0 {
		return b, nil
	}
	fresh, err := cfg.noAccount(ctx, b.Account)
	if err != nil {
		return b, fmt.Errorf("bootstrap: %w", err)
	}
	secret, path, made, err := adminKey(cfg)
	if err != nil {
		return b, fmt.Errorf("bootstrap: %w", err)
	}
	if fresh {
		if err := cfg.bootAccount(ctx, b); err != nil {
			return b, fmt.Errorf("bootstrap: account: %w", err)
		}
	}
	if err := cfg.bootKey(ctx, b, secret); err != nil {
		return b, cfg.yield(ctx, path, made, err)
	}
	b.KeyFile = path
	cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "made the first account and its administrator's key",
		slog.String("account_id", string(b.Account)), slog.String("key_file", path))
	return b, nil
}

// noAccount reports whether the first account is still to be made.
func (cfg BootstrapConfig) noAccount(ctx context.Context, account domain.AccountID) (bool, error) {
	// The end first: another node may be making the account right now.
	head, err := cfg.Log.Head(ctx, []string{domain.AccountStreams})
	if err != nil {
		return false, logError("read the end of the log", err)
	}
	history, err := readAll(ctx, cfg.Log, domain.AccountStream(account))
	if err != nil || len(history) > 0 {
		return false, err
	}
	if head != 0 {
		return false, ErrForeignLog
	}
	return true, nil
}

// yield returns nil where the key could not be appended because another node made it, with
// an admin.key of its own: then the one that this node made, which is of no key, goes.
func (cfg BootstrapConfig) yield(ctx context.Context, path string, made bool, cause error) error {
	if _, late := errors.AsType[*eventlog.WrongRevision](cause); !late {
		return fmt.Errorf("bootstrap: key: %w", cause)
	}
	cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "another node made the administrator's key; its value is in that node's "+AdminKeyFile)
	if !made {
		return nil
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("bootstrap: remove the key that lost: %w", err)
	}
	return nil
}

// ErrForeignLog says that the log was begun with another key store.
var ErrForeignLog = errors.New("the event log was begun with another key store: restore that key store, or use an empty log")

func bootstrapIDs(writer string) Bootstrapped {
	account := domain.DeriveID("bootstrap-account", writer)
	return Bootstrapped{
		Account: domain.AccountID(hex.EncodeToString(account[:])),
		Owner:   domain.IAMID("User-" + domain.DeriveID("bootstrap-owner", writer).String()),
		KeyID:   domain.KeyID("ApiKey-" + domain.DeriveID("bootstrap-key", writer).String()),
	}
}

// adminKey returns the key value in DIR/admin.key, making the file where there is none
// with a whole value; made says that this call did.
func adminKey(cfg BootstrapConfig) (value keystore.Secret, path string, made bool, err error) {
	path = filepath.Join(cfg.Dir, AdminKeyFile)
	for {
		data, err := os.ReadFile(path)
		missing := errors.Is(err, fs.ErrNotExist)
		if err != nil && !missing {
			return keystore.Secret{}, "", false, fmt.Errorf("read %s: %w", AdminKeyFile, err)
		}
		if value := strings.TrimSpace(string(data)); keystore.IsKeyValue(value) {
			return keystore.NewSecret(value), path, made, nil
		}
		if !missing {
			if err := os.Remove(path); err != nil {
				return keystore.Secret{}, "", false, fmt.Errorf("remove a torn %s: %w", AdminKeyFile, err)
			}
		}
		secret, err := keystore.NewKeyValue(cfg.Random)
		if err != nil {
			return keystore.Secret{}, "", false, fmt.Errorf("make key value: %w", err)
		}
		if made, err = cfg.CreateFile(path, []byte(secret.Reveal()+"\n")); err != nil {
			return keystore.Secret{}, "", false, fmt.Errorf("write %s: %w", AdminKeyFile, err)
		}
	}
}

func (cfg BootstrapConfig) bootAccount(ctx context.Context, b Bootstrapped) error {
	events, err := domain.Account{}.Decide(domain.CreateAccount{
		Account: b.Account, Name: "keytrail", Owner: b.Owner, OwnerName: "administrator",
	})
	if err != nil {
		return fmt.Errorf("decide: %w", err)
	}
	return cfg.append(ctx, domain.AccountStream(b.Account), events)
}

func (cfg BootstrapConfig) bootKey(ctx context.Context, b Bootstrapped, secret keystore.Secret) error {
	events, err := domain.Key{}.Decide(domain.CreateKey{
		ID: b.KeyID, Account: b.Account, IAMID: b.Owner, Kind: domain.KindUser, Name: "administrator",
		Description: "made at first start; its value is in " + AdminKeyFile, SecretHash: cfg.Store.FingerprintSecret(secret),
		By: systemInitiator(), At: cfg.Now(),
	})
	if err != nil {
		return fmt.Errorf("decide: %w", err)
	}
	return cfg.append(ctx, domain.KeyStream(b.KeyID), events)
}

func (cfg BootstrapConfig) append(ctx context.Context, stream string, events []domain.Event) error {
	proposed := make([]eventlog.Proposed, len(events))
	for i, e := range events {
		at, secret := domain.NextEffective(cfg.Now(), time.Time{}), ""
		if key, ok := e.(domain.KeyEvent); ok {
			at, secret = key.State().ModifiedAt, key.State().SecretHash
		}
		// The secret is part of the id: two nodes that start at once with one key store
		// and two admin.key must not both believe that theirs is the key.
		p, err := eventlog.Propose(domain.DeriveID("bootstrap", stream, e.Type(), secret), e, domain.Metadata{
			Schema: domain.MetadataSchema, EffectiveAt: at, Initiator: systemInitiator(), CorrelationID: "bootstrap",
		})
		if err != nil {
			return fmt.Errorf("propose: %w", err)
		}
		proposed[i] = p
	}
	if _, err := cfg.Log.Append(ctx, stream, eventlog.NoStream(), proposed...); err != nil {
		return logError("append to "+stream, err)
	}
	return nil
}

// systemOrder is an act of keytrail itself on one thing. Two nodes that do it at the same
// time give the same order: what it appends is one.
func systemOrder(act, thing string) Order {
	return Order{Caller: auth.NewCaller(systemInitiator(), nil), CorrelationID: act + " " + thing, RequestID: act + " " + thing}
}

// systemInitiator is keytrail itself.
func systemInitiator() domain.Initiator {
	return domain.Initiator{IAMID: domain.SystemIAMID, Name: "keytrail", Type: domain.ActorSystem}
}
