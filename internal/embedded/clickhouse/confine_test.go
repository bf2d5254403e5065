package clickhouse_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

// listener counts the connections that reach a port of ours.
func listener(t *testing.T, network, address string) (string, *atomic.Int64) {
	t.Helper()
	var seen atomic.Int64
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			seen.Add(1)
		}
	}}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String(), &seen
}

func TestTheEngineReachesNothingOutsideItsFolder(t *testing.T) {
	dir, outside, sockets := t.TempDir(), t.TempDir(), t.TempDir()
	s := start(t, embedded.Config{Dir: dir})
	c := client(t, s.Socket())
	const secret = "a-secret-of-the-host"
	secretFile := filepath.Join(outside, "secret.txt")
	if err := os.WriteFile(secretFile, []byte(secret+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	userFiles := filepath.Join(dir, "user_files")
	if err := os.MkdirAll(userFiles, 0o700); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link.txt": secretFile, "passwd.txt": "/etc/passwd", "linkdir": outside} {
		if err := os.Symlink(target, filepath.Join(userFiles, link)); err != nil {
			t.Fatal(err)
		}
	}
	address, connections := listener(t, "tcp", "127.0.0.1:0")
	_, unixConnections := listener(t, "unix", filepath.Join(sockets, ".s.PGSQL.5432"))
	script := filepath.Join(dir, "user_scripts", "run.sh")
	if err := os.MkdirAll(filepath.Dir(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho executed\n"), 0o755); err != nil {
		t.Fatal(err)
	}

	tests := []struct{ name, sql string }{
		{"file of the system", "SELECT * FROM file('/etc/passwd', 'LineAsString')"},
		{"file of another user of the machine", "SELECT * FROM file('" + secretFile + "', 'LineAsString')"},
		{"scalar file function", "SELECT file('" + secretFile + "')"},
		{"file by a relative way out", "SELECT * FROM file('../../../../../../../../etc/passwd', 'LineAsString')"},
		{"symlink in the user files", "SELECT * FROM file('link.txt', 'LineAsString')"},
		{"symlink by its full path", "SELECT * FROM file('" + filepath.Join(userFiles, "link.txt") + "', 'LineAsString')"},
		{"symlink to passwd", "SELECT * FROM file('" + filepath.Join(userFiles, "passwd.txt") + "', 'LineAsString')"},
		{"symlinked folder", "SELECT * FROM file('" + filepath.Join(userFiles, "linkdir", "secret.txt") + "', 'LineAsString')"},
		{"folder listing", "SELECT _path FROM file('" + outside + "/*', 'LineAsString')"},
		{"own environment", "SELECT * FROM file('/proc/self/environ', 'LineAsString')"},
		{"parent's environment", fmt.Sprintf("SELECT * FROM file('/proc/%d/environ', 'LineAsString')", os.Getpid())},
		{"own memory", "SELECT * FROM file('/proc/self/mem', 'LineAsString')"},
		{"write a file", "INSERT INTO FUNCTION file('" + outside + "/written.txt', 'TSV', 'a String') VALUES ('x')"},
		{"write over a file", "INSERT INTO FUNCTION file('" + secretFile + "', 'TSV', 'a String') SETTINGS engine_file_truncate_on_insert = 1 VALUES ('x')"},
		{"write through a symlink", "INSERT INTO FUNCTION file('" + filepath.Join(userFiles, "linkdir", "written.txt") + "', 'TSV', 'a String') VALUES ('x')"},
		{"into outfile", "SELECT 1 INTO OUTFILE '" + outside + "/written.txt'"},
		{"from infile", "INSERT INTO FUNCTION file('copied.txt', 'LineAsString', 'a String') FROM INFILE '" + secretFile + "' FORMAT LineAsString"},
		{"what infile copied", "SELECT * FROM file('copied.txt', 'LineAsString')"},
		{"file table", "CREATE TABLE outside_file (a String) ENGINE = File(TSV, '" + secretFile + "')"},
		{"url", "SELECT * FROM url('http://" + address + "/x', 'LineAsString')"},
		{"url by name", "SELECT * FROM url('http://localhost:" + port(address) + "/x', 'LineAsString')"},
		{"write to a url", "INSERT INTO FUNCTION url('http://" + address + "/x', 'TSV', 'a String') VALUES ('x')"},
		{"remote", "SELECT * FROM remote('" + address + "', system.one)"},
		{"remote secure", "SELECT * FROM remoteSecure('" + address + "', system.one)"},
		{"s3", "SELECT * FROM s3('http://" + address + "/bucket/key', 'LineAsString')"},
		{"azure", "SELECT * FROM azureBlobStorage('http://" + address + "/devstoreaccount1', 'c', 'p', 'a', 'YQ==', 'LineAsString')"},
		{"hdfs", "SELECT * FROM hdfs('hdfs://" + address + "/x', 'LineAsString')"},
		{"mysql", "SELECT * FROM mysql('" + address + "', 'd', 't', 'u', 'p')"},
		{"postgresql", "SELECT * FROM postgresql('" + address + "', 'd', 't', 'u', 'p')"},
		{"postgresql by its socket", "SELECT * FROM postgresql('" + sockets + ":5432', 'd', 't', 'u', 'p')"},
		{"mongodb", "SELECT * FROM mongodb('" + address + "', 'd', 't', 'u', 'p', 'a String')"},
		{"redis", "SELECT * FROM redis('" + address + "', 'k', 'k String, v String')"},
		{"sqlite", "SELECT * FROM sqlite('" + secretFile + "', 't')"},
		{"executable", "SELECT * FROM executable('run.sh', 'TSV', 'a String')"},
		{"executable shell", "SELECT * FROM executable('/bin/sh -c id', 'TSV', 'a String')"},
		{"backup to a url", "BACKUP DATABASE main TO S3('http://" + address + "/b', 'a', 'b')"},
		{"backup to a file", "BACKUP DATABASE main TO File('" + outside + "/backup')"},
		{"dictionary from http", "CREATE DICTIONARY d (k UInt64, v String) PRIMARY KEY k SOURCE(HTTP(URL 'http://" + address + "/' FORMAT 'TSV')) LAYOUT(FLAT()) LIFETIME(0)"},
		{"dictionary read", "SELECT dictGet('d', 'v', toUInt64(1))"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := ask(t, c, tt.sql, "http_max_tries", "1", "s3_retry_attempts", "0", "max_execution_time", "3", "connect_timeout", "2")
			if strings.Contains(a.body, secret) || strings.Contains(a.body, "root:") || strings.Contains(a.body, "executed") || strings.Contains(a.body, "uid=") {
				t.Fatalf("%s reached outside: %s", tt.sql, a.body)
			}
			t.Logf("status %d code %s: %.200s", a.status, a.code, a.body)
		})
	}
	if n := connections.Load() + unixConnections.Load(); n != 0 {
		t.Errorf("the engine made %d connections, want none", n)
	}
	entries, err := os.ReadDir(outside)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the engine left files outside: %v", entries)
	}
	if text, err := os.ReadFile(secretFile); err != nil || string(text) != secret+"\n" {
		t.Errorf("the file outside is now %q, %v", text, err)
	}
	if got := must(t, c, "SELECT 41 + 1"); got != "42" {
		t.Errorf("after all that 41 + 1 is %s", got)
	}
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}
