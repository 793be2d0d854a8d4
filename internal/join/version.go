package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/kvorum/kvorum/internal/state/command"
)

// ErrIncompatible refuses a member whose program is older than what the cluster
// has agreed on, or of another major version; the text is etcd's (server-ops.md 3.3).
var ErrIncompatible = errors.New("incompatible with current running cluster")

// VersionPath is where a member tells its versions.
const VersionPath = "/version"

// CheckVersion asks the URLs, in turn, for the version of their cluster, and says
// whether a program of a version can be part of it. A cluster that has not agreed on
// one yet takes whoever comes. Errors: ErrIncompatible; ErrNoCluster, with what each
// of them said.
func CheckVersion(ctx context.Context, client *http.Client, urls []string, own command.Version) error {
	all := []error{ErrNoCluster}
	for _, url := range urls {
		text, err := fetchVersion(ctx, client, url)
		if err != nil {
			all = append(all, fmt.Errorf("%s: %w", url, err))
			continue
		}
		cluster, decided := command.ParseVersion(text)
		if decided && (cluster.Major != own.Major || own.Before(cluster)) {
			return fmt.Errorf("%w: it has version %v, this program goes up to %v", ErrIncompatible, cluster, own)
		}
		return nil
	}
	return errors.Join(all...)
}

func fetchVersion(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+VersionPath, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answers %s", resp.Status)
	}
	var answer struct {
		Cluster string `json:"etcdcluster"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, answerBytes)).Decode(&answer)
	return answer.Cluster, err
}
