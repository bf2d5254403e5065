// Package suite pins IBM's Go SDK and what its own integration tests need, which
// scripts/ibmsuite runs, unmodified, against keytrail.
//
// It is a module of its own, so that ginkgo and gomega are no dependencies of keytrail.
package suite

import (
	_ "github.com/IBM/platform-services-go-sdk/iamidentityv1" // The tests lie in it.
	_ "github.com/onsi/ginkgo"                                // They need it,
	_ "github.com/onsi/gomega"                                // and this.
)
