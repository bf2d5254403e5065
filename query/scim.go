package query

import (
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/scim"
)

// parseSCIM returns the condition that text means over api_keys; blank text is all.
func parseSCIM(text string) (clickhouse.Cond, error) {
	e, err := scim.Parse(text, "name", "description", "iam_id", "created_by", "id")
	if err != nil {
		return clickhouse.Cond{}, err //nolint:wrapcheck // It is worded for the caller.
	}
	return scimCond(e), nil
}

// scimCond returns the condition that e is over the columns of its attributes' names.
func scimCond(e scim.Expr) clickhouse.Cond {
	switch {
	case e.Any != nil:
		return clickhouse.Or(scimConds(e.Any)...)
	case e.Not != nil:
		return clickhouse.Not(scimCond(*e.Not))
	case e.Attribute == "":
		return clickhouse.And(scimConds(e.All)...)
	}
	folded := "lowerUTF8(" + e.Attribute + ")"
	switch e.Operator {
	case "ne":
		return clickhouse.Raw(folded+" != lowerUTF8(?)", e.Value)
	case "co":
		return clickhouse.ContainsFold(e.Attribute, e.Value)
	case "sw":
		return clickhouse.Raw("startsWith("+folded+", lowerUTF8(?))", e.Value)
	case "ew":
		return clickhouse.Raw("endsWith("+folded+", lowerUTF8(?))", e.Value)
	}
	return clickhouse.Raw(folded+" = lowerUTF8(?)", e.Value)
}

func scimConds(list []scim.Expr) []clickhouse.Cond {
	out := make([]clickhouse.Cond, len(list))
	for i, e := range list {
		out[i] = scimCond(e)
	}
	return out
}
