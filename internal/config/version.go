package config

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Versions that programs and clients read (rule 36): the etcd interfaces that
// are spoken, and Kvorum's own.
const (
	ServerVersion  = "3.7.1"
	ClusterVersion = "3.7.0"
	StorageVersion = "3.7.0"
	APIVersion     = "3.7"
	KvorumVersion  = "0.1.0"
)

// GitSHA returns the short commit that the program was built from, or
// "Not provided" when the build did not record one.
func GitSHA() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 9 {
				return s.Value[:9]
			}
		}
	}
	return "Not provided"
}

// VersionText is what `etcd --version` prints.
func VersionText() string {
	return fmt.Sprintf("etcd Version: %s\nGit SHA: %s\nGo Version: %s\nGo OS/Arch: %s/%s\nKvorum Version: %s\n",
		ServerVersion, GitSHA(), runtime.Version(), runtime.GOOS, runtime.GOARCH, KvorumVersion)
}
