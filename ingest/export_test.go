package ingest

// LimitRecent makes the slots of i remember at most n ids that the usage table lacks.
func LimitRecent(i *Importer, n int) { i.slots.recentMax = n }

// KeepBatches makes a usage intake remember n batches of a slot however old they are.
func KeepBatches(u *Usage, n int) { u.slots.batchesMin = n }
