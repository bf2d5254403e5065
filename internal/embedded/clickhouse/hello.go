package clickhouse

import (
	"fmt"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// helloQuery is the first query of clickhouse-go on each HTTP connection.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

// hello answers helloQuery. The client reads this one block at the protocol
// revision it asked for, and all others at the revision that the block names;
// the engine writes at revision 0, so 0 is what the block must say.
func hello(version string) ([]byte, error) {
	block := proto.NewBlock()
	for _, c := range []struct {
		name string
		typ  column.Type
	}{
		{"displayName()", "String"}, {"version()", "String"}, {"revision()", "UInt32"}, {"timezone()", "String"},
	} {
		if err := block.AddColumn(c.name, c.typ); err != nil {
			return nil, fmt.Errorf("hello: %w", err)
		}
	}
	if err := block.Append("keytrail embedded engine", version, uint32(0), "UTC"); err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	var buf chproto.Buffer
	if err := block.Encode(&buf, proto.DBMS_TCP_PROTOCOL_VERSION); err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	return buf.Buf, nil
}
