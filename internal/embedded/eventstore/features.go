package eventstore

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
)

// protocolVersion is the EventStoreDB version whose behaviour this server keeps.
// Clients parse it: digits and dots only.
const protocolVersion = "24.10.0"

// features tells clients what this server can do.
type features struct {
	serverfeatures.UnimplementedServerFeaturesServer
}

// GetSupportedMethods implements the protocol's ServerFeatures.
func (features) GetSupportedMethods(context.Context, *shared.Empty) (*serverfeatures.SupportedMethods, error) {
	const service = "event_store.client.streams.streams"
	return &serverfeatures.SupportedMethods{
		EventStoreServerVersion: protocolVersion,
		Methods: []*serverfeatures.SupportedMethod{
			{ServiceName: service, MethodName: "read", Features: []string{"position", "events"}},
			{ServiceName: service, MethodName: "append"},
			{ServiceName: service, MethodName: "batchappend", Features: []string{"deadline_duration"}},
			{ServiceName: service, MethodName: "delete"},
			{ServiceName: service, MethodName: "tombstone"},
		},
	}, nil
}

// members answers for a cluster of one.
type members struct {
	gossip.UnimplementedGossipServer

	addr  net.Addr
	clock func() time.Time
}

// Read implements the protocol's Gossip.
func (m members) Read(context.Context, *shared.Empty) (*gossip.ClusterInfo, error) {
	var endpoint gossip.EndPoint
	if host, port, err := net.SplitHostPort(m.addr.String()); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, err
		}
		endpoint.Address, endpoint.Port = host, uint32(n)
	}
	return &gossip.ClusterInfo{Members: []*gossip.MemberInfo{{
		InstanceId:   &shared.UUID{Value: &shared.UUID_String_{String_: "00000000-0000-4000-8000-000000000001"}},
		TimeStamp:    ticks(m.clock()),
		State:        gossip.MemberInfo_Leader,
		IsAlive:      true,
		HttpEndPoint: &endpoint,
	}}}, nil
}
