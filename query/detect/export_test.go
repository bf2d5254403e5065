package detect

// Filters gives the filters of r in text, its parameters filled in.
func Filters(r *Rule) map[Source]string { return r.filters }

// Columns gives, by a field's name, the expression over source's table.
func Columns(source Source) map[string]string { return columns(source) }
