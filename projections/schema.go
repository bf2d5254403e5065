package projections

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// Schema returns the migrations of one generation's tables, for
// clickhouse.Store.Migrate.
func Schema() fs.FS {
	sub, err := fs.Sub(schemaFiles, "schema")
	if err != nil {
		panic(fmt.Sprintf("projections: embedded schema: %v", err)) // Only an invalid path can fail.
	}
	return sub
}
