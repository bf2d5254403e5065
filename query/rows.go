package query

import (
	"errors"

	"example.com/keytrail/internal/clickhouse"
)

// each calls f for every row and closes rows. A result that broke off is an error.
func each(rows clickhouse.Rows, f func() error) error {
	for rows.Next() {
		if err := f(); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}
