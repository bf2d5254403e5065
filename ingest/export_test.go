package ingest

// LimitRecent makes the slots of i remember at most n ids that the usage table lacks.
func LimitRecent(i *Importer, n int) { i.slots.recentMax = n }
