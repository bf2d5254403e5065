package domain

import "encoding/json"

// limitData is the part of a record about a limit that says how far it is used.
type limitData struct {
	IAMID IAMID `json:"iam_id"`
	Used  int   `json:"used"`
	Limit int   `json:"limit"`
}

// ofReservation makes a record of a limit that was neared or reached. The rest of what
// happens to slots is told by the events of their keys.
func ofReservation(a *Activity, e ReservationEvent) bool {
	switch e := e.(type) {
	case KeyLimitNeared:
		ofLimit(a, ActionLimitNear, e.Account, e.IAMID, e.Used, e.Limit)
		a.Severity = SeverityWarning
	case KeyLimitReached:
		ofLimit(a, ActionLimitReach, e.Account, e.IAMID, e.Used, e.Limit)
		a.Severity = SeverityCritical
	case KeySlotTaken, KeySlotFreed, KeySlotsAdopted, KeyValueReserved, KeyValueReleased:
		return false
	}
	return true
}

func ofLimit(a *Activity, action string, account AccountID, iam IAMID, used, limit int) {
	a.Action, a.Account, a.TargetName = action, account, string(iam)
	a.TargetID = crn(account, "identity", string(iam))
	b, err := json.Marshal(limitData{IAMID: iam, Used: used, Limit: limit})
	if err != nil {
		panic(err) // Strings and numbers always marshal.
	}
	a.RequestData = b
}
