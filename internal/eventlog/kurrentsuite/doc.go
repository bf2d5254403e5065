// Package kurrentsuite pins the test suite of Kurrent's Go client, which
// scripts/clientsuite runs, unmodified, against the embedded event store.
//
// It is a module of its own: Kurrent's and EventStore's clients register the same
// protocol messages and cannot be linked into one binary.
package kurrentsuite

import (
	_ "github.com/kurrent-io/KurrentDB-Client-Go/kurrentdb" // Beside it lies the suite, package test.
	_ "github.com/stretchr/testify/suite"                   // The suite needs it.
)
