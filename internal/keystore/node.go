package keystore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"example.com/keytrail/domain"
)

// nodeFile holds the node's name, in its data folder.
const nodeFile = "node.id"

// NodeID returns the name of the node whose data folder is dir, made at first use: it
// names the streams that this node alone writes, so no two nodes may share dir, and a copy
// of dir must not keep the file node.id. first, where it is not "", is the name that a node
// without one takes: that of an installation from when the key store named its one node.
func NodeID(dir, first string) (string, error) {
	path := filepath.Join(dir, nodeFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if first == "" {
			var b [8]byte
			rand.Read(b[:])
			first = hex.EncodeToString(b[:])
		}
		if _, err := CreateFile(path, []byte(first+"\n")); err != nil {
			return "", fmt.Errorf("name this node: %w", err)
		}
		data, err = os.ReadFile(path) // Of two that made it at once one did.
	}
	if err != nil {
		return "", fmt.Errorf("read this node's name: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if !domain.ValidID(id) {
		return "", fmt.Errorf("%s holds no name of a node: restore it, or remove it to name this node anew", path)
	}
	return id, nil
}
