package domain

import (
	"cmp"
	"slices"
	"strings"
)

// holdReasonBytesMax bounds the reason of a hold and of its release.
const holdReasonBytesMax = 1024

// HoldCommand is an order about legal holds. The set is closed.
//
//sumtype:decl
type HoldCommand interface{ isHoldCommand() }

// SetLegalHold forbids to cut anything of Account, or of anybody where it is empty.
type SetLegalHold struct {
	Hold    string // Its id, chosen by the caller.
	Account AccountID
	Reason  string
}

// ReleaseLegalHold ends a hold.
type ReleaseLegalHold struct {
	Hold   string
	Reason string
}

func (SetLegalHold) isHoldCommand()     {}
func (ReleaseLegalHold) isHoldCommand() {}

// Decide returns the facts that cmd adds. None and a nil error mean that it repeats what
// is already so.
func (h LegalHolds) Decide(cmd HoldCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case SetLegalHold:
		return h.hold(c)
	case ReleaseLegalHold:
		return h.release(c)
	}
	return nil, Errorf(Internal, "unexpected command %T", cmd)
}

func (h LegalHolds) hold(c SetLegalHold) ([]Event, error) {
	if err := checkHold(c.Hold, c.Reason); err != nil {
		return nil, err
	}
	if c.Account != "" && !ValidID(string(c.Account)) {
		return nil, Errorf(Invalid, "is not an account id").WithField("account_id").WithMessageCode("invalid_id")
	}
	if _, released := h.past[c.Hold]; released {
		return nil, Errorf(Conflict, "hold %s was released; a new hold needs a new id", c.Hold).WithMessageCode("hold_released")
	}
	if old, ok := h.set[c.Hold]; ok {
		if old.Account != c.Account || old.Reason != c.Reason {
			return nil, Errorf(Conflict, "hold %s is in force with another account or reason", c.Hold).WithMessageCode("hold_exists")
		}
		return nil, nil
	}
	return []Event{LegalHoldSet(c)}, nil
}

func (h LegalHolds) release(c ReleaseLegalHold) ([]Event, error) {
	if err := checkHold(c.Hold, c.Reason); err != nil {
		return nil, err
	}
	old, ok := h.set[c.Hold]
	if _, released := h.past[c.Hold]; released && !ok {
		return nil, nil
	}
	if !ok {
		return nil, Errorf(NotFound, "no such hold").WithMessageCode("no_such_hold")
	}
	return []Event{LegalHoldReleased{Hold: c.Hold, Account: old.Account, Reason: c.Reason}}, nil
}

func checkHold(id, reason string) error {
	switch {
	case !ValidID(id):
		return Errorf(Invalid, "is not an id: 1 to 128 letters, digits and -_.:@").WithField("id").WithMessageCode("invalid_id")
	case strings.TrimSpace(reason) == "":
		return Errorf(Invalid, "must say why").WithField("reason").WithMessageCode("required")
	case len(reason) > holdReasonBytesMax:
		return Errorf(Invalid, "is longer than %d bytes", holdReasonBytesMax).WithField("reason").WithMessageCode("too_long")
	}
	return nil
}

func sortHolds(holds []LegalHold) {
	slices.SortFunc(holds, func(a, b LegalHold) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.ID, b.ID))
	})
}
