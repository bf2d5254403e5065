package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/keystore"
)

// The saga of a rotation; each step is durable before the next:
//
//	slot of the successor taken, outside the limit → successor created → old key rotated
//
// The slots decide which of several rotations goes on: a key has one successor. Where it
// breaks off before the last step, nobody was told the successor's value, so it is undone:
// the old key's stream says first that this successor will not be, so that a rotation that is
// merely slow loses; then the successor is deleted.

// RotateKey makes the successor of a key, which ends after overlap by itself, and returns
// the successor without history, and its value. A refusal is recorded before RotateKey
// returns it.
func (s *Commands) RotateKey(ctx context.Context, o Order, ref KeyRef, overlap time.Duration) (domain.Key, keystore.Secret, uint64, error) {
	target := domain.KeyState{ID: ref.ID, Account: o.Caller.Initiator.Account}
	refuse := func(err error) (domain.Key, keystore.Secret, uint64, error) {
		request := map[string]string{"overlap": overlap.String()}
		return domain.Key{}, keystore.Secret{}, 0, s.refuse(ctx, o, keyRefusal(domain.VerbRotate, target, request), err)
	}
	stream, err := s.resolve(ctx, o, ref)
	if err != nil {
		return refuse(err)
	}
	f, err := foldNow(ctx, s.cfg.Log, s.keys, stream)
	if err == nil {
		err = visible(o, ref, f.state)
	}
	if err != nil {
		return refuse(err)
	}
	target = f.state.State()
	may := func() error { return s.authorizeKey(o, domain.VerbRotate, target) }
	if err := may(); err != nil {
		return refuse(err)
	}
	if err := f.state.MayRotate(o.Caller.Initiator); err != nil {
		return refuse(err)
	}
	m, err := s.successorOf(o, target)
	if err != nil {
		return refuse(err)
	}
	m.may = may
	next, position, err := s.rotate(ctx, o, target, m, overlap)
	if err != nil {
		return refuse(err)
	}
	return next, m.secret, position, nil
}

// successorOf returns the key that is to follow old: like it, with a value of its own.
func (s *Commands) successorOf(o Order, old domain.KeyState) (keyMaking, error) {
	m, err := s.newKey(o, old.Kind, NewKey{
		Account: old.Account, IAMID: old.IAMID, Name: old.Name, Description: old.Description,
		ActionOnLeak: old.ActionOnLeak, SupportSessions: old.SupportSessions, StoreValue: old.ValueStored,
	})
	m.cmd.Predecessor = old.ID
	return m, err
}

func (s *Commands) rotate(ctx context.Context, o Order, old domain.KeyState, m keyMaking, overlap time.Duration) (domain.Key, uint64, error) {
	if err := s.endPredecessor(ctx, old); err != nil {
		return domain.Key{}, 0, err
	}
	next, err := s.makeKey(ctx, o, m)
	if err != nil {
		return domain.Key{}, 0, err
	}
	now := s.cfg.Now()
	cmd := domain.RotateKey{Successor: m.cmd.ID, Until: now.Add(overlap), Abandoned: old.AbandonedRotations, By: o.Caller.Initiator, At: now}
	f, err := transact(ctx, s, s.keys, o, domain.KeyStream(old.ID), false, func(key domain.Key) (decision, error) {
		if err := m.may(); err != nil {
			return decision{}, err
		}
		return decideKey(key, cmd, cmd.At)
	})
	if err != nil && !doubtful(err) {
		// The old key certainly goes on alone. What fails of this is left to the reconciler.
		_ = s.undoRotation(ctx, old.ID, keySlotOf(next.state.State()))
	}
	return next.state, f.position, err
}

// endPredecessor writes that the key which old followed has ended, where it has by the clock:
// old takes its place, and can have a successor itself.
func (s *Commands) endPredecessor(ctx context.Context, old domain.KeyState) error {
	if old.Predecessor == "" {
		return nil
	}
	before, ok := s.cfg.Directory.Key(old.Predecessor)
	if !ok || before.Deleted || before.EndsAt == nil || s.cfg.Now().Before(*before.EndsAt) {
		return nil
	}
	return s.endKey(ctx, "end", before.ID, "")
}

// endKey deletes a key as keytrail's own act, which follows from the event cause.
func (s *Commands) endKey(ctx context.Context, act string, id domain.KeyID, cause string) error {
	o := systemOrder(act, string(id))
	o.CausationID = cause
	_, _, err := s.ChangeKey(ctx, o, KeyRef{ID: id}, domain.DeleteKey{By: o.Caller.Initiator, At: s.cfg.Now()}, nil)
	return err
}

// undoRotation ends the successor of a rotation that broke off, unless it came to its end
// after all.
func (s *Commands) undoRotation(ctx context.Context, old domain.KeyID, successor keySlot) error {
	o := systemOrder("undo rotation", string(successor.id))
	cmd := domain.AbandonRotation{Successor: successor.id, At: s.cfg.Now()}
	f, err := transact(ctx, s, s.keys, o, domain.KeyStream(old), false, func(key domain.Key) (decision, error) {
		return decideKey(key, cmd, cmd.At)
	})
	if err != nil || f.state.State().Successor == successor.id {
		return err
	}
	key, err := foldNow(ctx, s.cfg.Log, s.keys, domain.KeyStream(successor.id))
	if err == nil && key.state.Exists() && !key.state.State().Deleted {
		return s.endKey(ctx, "undo rotation", successor.id, "")
	}
	return err
}

// rotateBody is the body of POST /v1/apikeys/{id}/rotate.
type rotateBody struct {
	Overlap json.RawMessage `json:"overlap,omitempty" description:"How long the old key goes on: seconds, or such as \"36h\". Default 24 h; 0 ends it at once."`
}

type rotateRequest struct {
	keyRequest
	rotateBody
}

func (h *KeyAPI) rotateRoute() apidoc.Route {
	return apidoc.Route{
		Method: http.MethodPost, Path: "/v1/apikeys/:id/rotate", Group: groupKeys, Summary: "Make a key's successor; the key ends by itself.",
		Description: "A key has one successor. It is a key of its own, with name, description and rights of the old one, and outside the limit until that has ended.",
		Request:     rotateRequest{}, Answers: []apidoc.Answer{{Status: http.StatusCreated, Body: keyView{}, Description: "The successor. Its value is shown this once."}},
		Handler: h.rotateKey,
	}
}

// rotateKey answers 201 with the successor and its value, which is shown this once.
func (h *KeyAPI) rotateKey(c *gin.Context) {
	overlap, err := bindOverlap(c)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	key, secret, pos, err := h.Commands.RotateKey(c.Request.Context(), orderOf(c), refOf(c), overlap)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	h.answerKey(c, http.StatusCreated, key.State(), func(v *keyView) { v.APIKey = secret.Reveal() })
}

func bindOverlap(c *gin.Context) (time.Duration, error) {
	if c.Request.ContentLength == 0 {
		return domain.RotationOverlapDefault, nil
	}
	var b rotateBody
	if err := httpx.BindJSON(c, &b); err != nil {
		return 0, err //nolint:wrapcheck // Worded for the caller.
	}
	if len(b.Overlap) == 0 {
		return domain.RotationOverlapDefault, nil
	}
	overlap, err := parseOverlap(b.Overlap)
	if err != nil || overlap < 0 || overlap > domain.RotationOverlapMax || overlap%time.Second != 0 {
		return 0, domain.Errorf(domain.Invalid, `must be whole seconds, or a duration such as "36h": 0 to %s`, domain.RotationOverlapMax).
			WithField("overlap").WithMessageCode("invalid_overlap")
	}
	return overlap, nil
}

func parseOverlap(raw json.RawMessage) (time.Duration, error) {
	var seconds int32
	if err := json.Unmarshal(raw, &seconds); err == nil && string(raw) != "null" {
		return time.Duration(seconds) * time.Second, nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil || text == "" {
		return 0, fmt.Errorf("not a duration: %w", err)
	}
	return time.ParseDuration(text) //nolint:wrapcheck // The caller words it.
}
