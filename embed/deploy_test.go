package embed

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kvorum/kvorum/internal/config"
)

// words splits a command line as a shell does, double quotes alone.
func words(line string) (list []string) {
	quoted := false
	word := strings.Builder{}
	for _, r := range line + " " {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ' ' && !quoted:
			if word.Len() > 0 {
				list = append(list, word.String())
			}
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	return list
}

// commandLine parses a command line that begins with the program, and wants no warning.
func commandLine(t *testing.T, line string) Config {
	t.Helper()
	w := words(line)
	if len(w) == 0 || w[0] != "etcd" && w[0] != "/usr/bin/etcd" {
		t.Fatalf("no etcd: %q", line)
	}
	cfg, warnings, err := config.Parse(w[1:], nil, os.ReadFile)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%s: %v, %v", line, err, warnings)
	}
	return cfg
}

// The shipped unit is one that etcd's users have: it starts the program as it stands.
func TestTheShippedUnit(t *testing.T) {
	text, err := os.ReadFile("../deploy/etcd.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := strings.ReplaceAll(string(text), "\\\n", " ")
	for _, want := range []string{"Type=notify", "Restart=on-failure", "LimitNOFILE=65536", "WantedBy=multi-user.target"} {
		if !strings.Contains(unit, want+"\n") {
			t.Errorf("the unit does not say %s", want)
		}
	}
	_, line, _ := strings.Cut(unit, "ExecStart=")
	line, _, _ = strings.Cut(line, "\n")
	cfg := commandLine(t, line)
	if cfg.Name != "etcd1" || cfg.DataDir != "/opt/etcd/" || !cfg.ListenPeerURLs.Secure() || len(cfg.ListenClientURLs) != 2 {
		t.Errorf("%+v", cfg)
	}
	if _, err := cfg.CheckInitialCluster(nil); err != nil {
		t.Error(err)
	}
}

// The unit that the guide installs starts a member as it stands, and the directory that
// the guide makes is the member's, as is the user.
func TestTheUnitOfTheGuide(t *testing.T) {
	text, err := os.ReadFile("../deploy/debian/etcd.service")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/guide/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	says := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			says[key] = value
		}
	}
	if says["Type"] != "notify" || says["ExecStart"] != "/usr/bin/etcd" || says["EnvironmentFile"] != "-/etc/default/etcd" || says["WantedBy"] != "multi-user.target" {
		t.Errorf("the unit says %q", says)
	}
	cfg, _, err := config.Parse(nil, []string{says["Environment"]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"install -d -o " + says["User"] + " -g " + says["User"] + " -m 0700 " + cfg.DataDir + "\n",
		"install -m 0644 deploy/debian/etcd.service /lib/systemd/system/etcd.service\n",
	} {
		if !strings.Contains(string(page), line) {
			t.Errorf("the guide does not say %s", line)
		}
	}
}

// Every service of the compose file starts a member that knows the others of its
// profile by the names that they have in the network.
func TestTheComposeFile(t *testing.T) {
	text, err := os.ReadFile("../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Command  string
			Profiles []string
			Ports    []string
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	members, ports := map[string][]string{}, map[string]string{}
	for name, s := range file.Services {
		cfg := commandLine(t, s.Command)
		list, err := cfg.InitialMembers()
		if err != nil || cfg.Name != name {
			t.Fatalf("%s: it is called %s, %v", name, cfg.Name, err)
		}
		for _, m := range list {
			if want := "http://" + m.Name + ":2380"; m.PeerURLs.String() != want || !slices.Equal(file.Services[m.Name].Profiles, s.Profiles) {
				t.Errorf("%s looks for %s at %s", name, m.Name, m.PeerURLs)
			}
		}
		members[s.Profiles[0]] = append(members[s.Profiles[0]], name)
		if len(list) != map[string]int{"one": 1, "three": 3, "four": 4}[s.Profiles[0]] {
			t.Errorf("%s knows %d members", name, len(list))
		}
		for _, p := range s.Ports {
			if outside, _, ok := strings.Cut(p, ":"); ok {
				if ports[outside] != "" {
					t.Errorf("%s and %s want port %s", name, ports[outside], outside)
				}
				ports[outside] = name
			}
		}
	}
	if got := fmt.Sprint(len(members["one"]), len(members["three"]), len(members["four"])); got != "1 3 4" {
		t.Errorf("the profiles have %s members", got)
	}
}

// The image has what its Dockerfile starts and asks.
func TestTheDockerfileAgreesWithTheRelease(t *testing.T) {
	docker, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	release, err := os.ReadFile("../scripts/release")
	if err != nil {
		t.Fatal(err)
	}
	for text, parts := range map[string][]string{
		string(docker):  {"FROM scratch\n", "COPY dist/${TARGETOS}-${TARGETARCH}/ /usr/local/bin/\n", `"/usr/local/bin/etcdctl", "endpoint", "health"]`, `CMD ["/usr/local/bin/etcd"]`},
		string(release): {"out=${1:-dist}\n", "dir=$out/linux-$arch\n", "for p in etcd etcdctl etcdutl"},
	} {
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%q is not in\n%s", part, text)
			}
		}
	}
}
