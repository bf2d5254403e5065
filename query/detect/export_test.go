package detect

// Filters gives the filters of r in text, its parameters filled in.
func Filters(r *Rule) map[Source]string { return r.filters }
