// FairShare: what each tenant has been served, and whose turn it is: the Virtual Token Counter of Sheng et al.,
// "Fairness in Serving Large Language Models", OSDI 2024, algorithm 2.
//
// A tenant's counter grows by the cost of what is computed for it, divided by its weight: 1 for a prompt token that is
// not found in the prefix cache, when its request is admitted, and 2 for a generated one (the paper's w_p and w_q). The
// tenant with the smallest counter among those with waiting requests is next. A tenant that had none waiting is lifted
// to the smallest of those that have (nobody waits: to that of the tenant that waited last), so that an idle one builds
// no credit. Between two tenants that are both backlogged the difference of what they got, by weight, stays below
// 2 * max(cost of the longest prompt, cost of a full batch's outputs) (theorem 4.4).
//
// Memory is bounded: at most max_tenants accounts. One without requests is forgotten when a lift would make up for it
// anyhow, or when its place is needed; when all have requests, further tenants share one account.
//
// Thread: the engine thread. It knows neither blocks nor sequences.

#ifndef QUIRE_SCHEDULER_FAIR_SHARE_H_
#define QUIRE_SCHEDULER_FAIR_SHARE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace quire {

using AccountId = int32_t;

class FairShare {
 public:
  static constexpr double kPromptCost = 1, kOutputCost = 2;  // of one token

  // Tenants that `weights` does not name have weight 1. REQUIRES: max_tenants >= 1, weights > 0 (Check).
  FairShare(int32_t max_tenants, std::map<std::string, double> weights);

  // A request of this tenant comes. The account stays valid until as many calls of Close.
  AccountId Open(absl::string_view tenant);
  // The account that it has now, if it has one.
  std::optional<AccountId> Find(absl::string_view tenant) const;
  void Close(AccountId account);

  // One of the account's requests begins or ceases to wait. `is_new`: it came just now, and did not run before.
  void BeginWaiting(AccountId account, bool is_new);
  void EndWaiting(AccountId account);

  void Charge(AccountId account, double cost) { accounts_[account].counter += cost * accounts_[account].per_weight; }

  // The account to be served next; nullopt if nobody waits.
  std::optional<AccountId> Next() const;

  int32_t num_waiting(AccountId account) const { return accounts_[account].num_waiting; }
  double weight(AccountId account) const { return 1 / accounts_[account].per_weight; }
  double counter(AccountId account) const { return accounts_[account].counter; }
  // Ids are below this.
  int32_t num_accounts() const { return static_cast<int32_t>(accounts_.size()); }

 private:
  struct Account {
    std::string tenant;
    double counter = 0;
    double per_weight = 1;     // 1 / weight
    int32_t num_requests = 0;  // opened and not closed
    int32_t num_waiting = 0;
  };

  // A place for a new tenant: a new one, or that of an idle tenant; nullopt if all have requests.
  std::optional<AccountId> FindPlace();
  void Forget(AccountId account);
  // What a tenant that had nothing waiting is lifted to.
  double Floor() const;

  const size_t max_tenants_;
  const std::map<std::string, double> weights_;
  std::vector<Account> accounts_;  // by id; the first is shared by the tenants that have no place of their own
  std::vector<AccountId> free_;    // of forgotten tenants
  absl::flat_hash_map<std::string, AccountId> by_tenant_;
  double last_waited_ = 0;  // the counter of the tenant that waited last, when it was admitted
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_FAIR_SHARE_H_
