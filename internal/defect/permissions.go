package defect

// The mistakes about permissions: each let somebody see or write what he was not
// allowed to, in etcd in one of the years before, or would. They are found by the
// tests of what they are in, and so are none of All; some of them by the simulator too.
const (
	// NestedTxnUnchecked: a txn inside another one is not judged (CVE-2026-33343).
	NestedTxnUnchecked Defect = 1000 + iota
	// NestedPrevUnchecked: a put in a txn tells the former pair to who may only write
	// (CVE-2026-44283).
	NestedPrevUnchecked
	// NestedLeaseUnchecked: a put in a txn joins a lease whatever hangs on it
	// (CVE-2026-44283).
	NestedLeaseUnchecked
	// OpenEndForgotten: "from this key on" is judged as the key alone (GHSA-xg4h).
	OpenEndForgotten
	// MaintenanceForNobody: calls that are not about keys ask for no credentials
	// (CVE-2026-33413).
	MaintenanceForNobody
	// FailureBranchUnchecked: only the branch of success is judged.
	FailureBranchUnchecked
	// ComparesUnchecked: compares tell what may not be read.
	ComparesUnchecked
	// DeletePrevUnchecked: a deletion tells the former pairs to who may only write.
	DeletePrevUnchecked
	// LeaseKeysUnchecked: a lease is ended, renewed or listed whatever hangs on it.
	LeaseKeysUnchecked
	// GapCovered: two permissions cover the keys between them.
	GapCovered
	// OldRevisionObeyed: a command that was judged before a change is obeyed after it.
	OldRevisionObeyed
	// ApplyUnchecked: commands are judged at admission only.
	ApplyUnchecked
	// TokenOutlivesPassword: tokens outlive the password that they were given for.
	TokenOutlivesPassword
	// WatchOutlivesGrant: a watch goes on when its permission is gone.
	WatchOutlivesGrant
	// BadTokenForgiven: who has a bad token is known by his certificate.
	BadTokenForgiven
	// PasswordInCommand: what goes into the log has the password in it (CVE-2021-28235).
	PasswordInCommand
	endOfPermissions
)

var permissions = [...]string{
	"nested-txn-unchecked", "nested-prev-unchecked", "nested-lease-unchecked", "open-end-forgotten", "maintenance-for-nobody",
	"failure-branch-unchecked", "compares-unchecked", "delete-prev-unchecked", "lease-keys-unchecked", "gap-covered",
	"old-revision-obeyed", "apply-unchecked", "token-outlives-password", "watch-outlives-grant", "bad-token-forgiven",
	"password-in-command",
}

// Permissions lists the mistakes about permissions.
func Permissions() (all []Defect) {
	for d := NestedTxnUnchecked; d < endOfPermissions; d++ {
		all = append(all, d)
	}
	return all
}
