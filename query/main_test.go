package query_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"example.com/keytrail/internal/clickhouse/clickhousetest"
)

func TestMain(m *testing.M) {
	os.Exit(clickhousetest.Main(m, func() int {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}))
}
