package eventstore

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// secured returns the server options and the users of an address that others can reach;
// neither for a socket and for an address that is insecure on purpose.
func (c Config) secured() ([]grpc.ServerOption, map[string]*user, error) {
	if c.CertFile == "" {
		return nil, nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("event store: load certificate: %w", err)
	}
	users, err := readUsers(c.UsersFile)
	if err != nil {
		return nil, nil, fmt.Errorf("event store: %w", err)
	}
	creds := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	return []grpc.ServerOption{grpc.Creds(creds)}, users, nil
}

// validateAddress reports what is wrong with where and how c serves.
func (c Config) validateAddress() []error {
	var errs []error
	secure := c.CertFile != "" || c.KeyFile != "" || c.UsersFile != ""
	if c.Listen == "" {
		if secure || c.Insecure {
			errs = append(errs, errors.New("event store: a certificate, users and insecure belong to a listen address: a socket is protected by its folder"))
		}
		return errs
	}
	switch {
	case secure && c.Insecure:
		errs = append(errs, errors.New("event store: insecure excludes a certificate and users"))
	case secure && (c.CertFile == "" || c.KeyFile == "" || c.UsersFile == ""):
		errs = append(errs, errors.New("event store: a certificate file, its key file and a users file belong together"))
	case !secure && !c.Insecure:
		errs = append(errs, fmt.Errorf("event store: %s would be served without transport security: give a certificate, its key and a users file, or say insecure for an address of this machine", c.Listen))
	case c.Insecure && !loopback(c.Listen):
		errs = append(errs, fmt.Errorf("event store: %s can be reached by others: insecure is for an address of this machine only, such as 127.0.0.1:2113", c.Listen))
	}
	return errs
}

// loopback reports whether only this machine can reach address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
