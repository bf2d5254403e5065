package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/launch"
)

const (
	// sdkPackage is whose tests are run.
	sdkPackage = "github.com/IBM/platform-services-go-sdk/iamidentityv1"
	// configFile is what the tests read, one folder above theirs.
	configFile = "iam_identity.env"
	reportFile = "report.xml"
	// opening begins the name of every integration test; the other tests of the package
	// ask servers of their own.
	opening = "IamIdentityV1 Integration Tests "
)

// build makes the program of the tests in dir, after fetching their module if it is not
// there.
func build(ctx context.Context, module, dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(module, "go.mod")); err != nil {
		return "", fmt.Errorf("ibmsuite is run from the root of the repository: %w", err)
	}
	tests := filepath.Join(dir, "tests")
	cmd := exec.CommandContext(ctx, "go", "test", "-tags", "integration", "-c", "-o", tests, sdkPackage) //nolint:gosec // Our own words.
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the SDK's tests: %w\n%s", err, out)
	}
	return tests, nil
}

// identity is who the tests are: the administrator of a server.
type identity struct{ url, key, iamID, account string }

func whoAmI(ctx context.Context, srv *launch.Server) (identity, error) {
	c, err := client.New(client.Config{Server: srv.Address, KeyFile: srv.KeyFile})
	if err != nil {
		return identity{}, fmt.Errorf("ask the server: %w", err)
	}
	defer c.Close()
	var me struct {
		IAMID   string `json:"iam_id"`
		Account string `json:"account_id"`
	}
	req := client.Request{Method: http.MethodGet, Path: "/v1/apikeys/details", Header: http.Header{"Iam-Apikey": {c.Key()}}}
	if err := c.JSON(ctx, req, nil, &me); err != nil {
		return identity{}, fmt.Errorf("ask who the administrator is: %w", err)
	}
	return identity{url: srv.Address, key: c.Key(), iamID: me.IAMID, account: me.Account}, nil
}

// env is what lifecycle.mjs reads.
func (i identity) env() []string {
	return []string{"KEYTRAIL_URL=" + i.url, "KEYTRAIL_APIKEY=" + i.key, "KEYTRAIL_IAM_ID=" + i.iamID, "KEYTRAIL_ACCOUNT_ID=" + i.account}
}

// writeConfig tells the Go tests where the server is and who they are. They demand
// accounts of an enterprise, which are this one.
func writeConfig(i identity, dir string) error {
	var text strings.Builder
	for _, line := range [][2]string{
		{"URL", i.url},
		{"AUTH_TYPE", "iam"},
		{"AUTH_URL", i.url},
		{"APIKEY", i.key},
		{"IAM_ID", i.iamID},
		{"ACCOUNT_ID", i.account},
		{"ENTERPRISE_ACCOUNT_ID", i.account},
		{"ENTERPRISE_SUBACCOUNT_ID", i.account},
	} {
		fmt.Fprintf(&text, "IAM_IDENTITY_%s=%s\n", line[0], line[1])
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write the tests' configuration: %w", err)
	}
	return nil
}

// runTests runs the program of the tests. The error is about the run, not about the tests.
func runTests(ctx context.Context, tests, dir string) (*tally, error) {
	work := filepath.Join(dir, "iamidentityv1")
	if err := os.Mkdir(work, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	report := filepath.Join(dir, reportFile)
	cmd := exec.CommandContext(ctx, tests, "-ginkgo.focus", opening, "-ginkgo.noColor", "-ginkgo.reportFile", report, "-test.timeout", "4m") //nolint:gosec // What build made.
	cmd.Dir = work
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return nil, fmt.Errorf("run the SDK's tests: %w", err)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("the SDK's tests left no report: %w\n%s", err, said.Bytes())
	}
	return parse(text)
}

// parse reads ginkgo's report.
func parse(text []byte) (*tally, error) {
	var doc struct {
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Failure string    `xml:"failure"`
			Skipped *struct{} `xml:"skipped"`
			Output  string    `xml:"system-out"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("read the SDK's report: %w", err)
	}
	t := &tally{}
	for _, c := range doc.Cases {
		name, ours := strings.CutPrefix(c.Name, opening)
		if !ours && name != "AfterSuite" {
			continue
		}
		one := test{name: name, state: statePassed, why: absenceOf(name), said: head(c.Failure) + "\n…\n" + tail(c.Output)}
		switch {
		case c.Failure != "":
			one.state = stateFailed
		case c.Skipped != nil:
			one.state = stateSkipped
		}
		t.tests = append(t.tests, one)
	}
	return t, nil
}

// saidBytesMax bounds what is repeated of a test's words, at either end.
const saidBytesMax = 1 << 10

func head(s string) string { return s[:min(len(s), saidBytesMax)] }

func tail(s string) string { return s[max(0, len(s)-saidBytesMax):] }
