#include "scheduler/fair_share.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace quire {
namespace {

constexpr AccountId kShared = 0;

}  // namespace

FairShare::FairShare(int32_t max_tenants, std::map<std::string, double> weights)
    : max_tenants_(static_cast<size_t>(max_tenants)), weights_(std::move(weights)), accounts_(1) {
  Check(max_tenants >= 1, "at least one tenant is needed");
  for (const auto& [tenant, weight] : weights_) Check(weight > 0, "a tenant's weight is above 0");
}

AccountId FairShare::Open(absl::string_view tenant) {
  const auto found = by_tenant_.find(tenant);
  AccountId account = kShared;
  if (found != by_tenant_.end()) {
    account = found->second;
  } else if (const std::optional<AccountId> place = FindPlace()) {
    account = *place;
    const auto weight = weights_.find(std::string(tenant));
    accounts_[account] = {
        .tenant = std::string(tenant), .counter = 0, .per_weight = weight == weights_.end() ? 1 : 1 / weight->second};
    by_tenant_.emplace(accounts_[account].tenant, account);
  }
  ++accounts_[account].num_requests;
  return account;
}

std::optional<AccountId> FairShare::Find(absl::string_view tenant) const {
  const auto found = by_tenant_.find(tenant);
  if (found == by_tenant_.end()) return std::nullopt;
  return found->second;
}

std::optional<AccountId> FairShare::FindPlace() {
  if (by_tenant_.size() >= max_tenants_) {
    // The idle tenant that loses least: it has the smallest debt.
    std::optional<AccountId> idle;
    for (AccountId account = kShared + 1; account < num_accounts(); ++account) {
      const bool is_idle = accounts_[account].num_requests == 0;
      if (is_idle && (!idle || accounts_[account].counter < accounts_[*idle].counter)) idle = account;
    }
    if (!idle) return std::nullopt;
    Forget(*idle);
  }
  if (free_.empty()) {
    accounts_.emplace_back();
    return num_accounts() - 1;
  }
  const AccountId place = free_.back();
  free_.pop_back();
  return place;
}

void FairShare::Close(AccountId account) {
  Check(accounts_[account].num_requests > 0, "an account is closed that is not open");
  const bool is_idle = --accounts_[account].num_requests == 0;
  if (is_idle && account != kShared && accounts_[account].counter <= Floor()) Forget(account);
}

void FairShare::Forget(AccountId account) {
  by_tenant_.erase(accounts_[account].tenant);
  accounts_[account] = {};
  free_.push_back(account);
}

double FairShare::Floor() const {
  const std::optional<AccountId> next = Next();
  return next ? accounts_[*next].counter : last_waited_;
}

void FairShare::BeginWaiting(AccountId account, bool is_new) {
  Account& waiting = accounts_[account];
  if (is_new && waiting.num_waiting == 0) waiting.counter = std::max(waiting.counter, Floor());
  ++waiting.num_waiting;
}

void FairShare::EndWaiting(AccountId account) {
  Check(accounts_[account].num_waiting > 0, "a request ceases to wait that did not");
  if (--accounts_[account].num_waiting == 0) last_waited_ = accounts_[account].counter;
}

std::optional<AccountId> FairShare::Next() const {
  std::optional<AccountId> next;
  for (AccountId account = 0; account < num_accounts(); ++account) {
    if (accounts_[account].num_waiting == 0) continue;
    if (!next || accounts_[account].counter < accounts_[*next].counter) next = account;
  }
  return next;
}

}  // namespace quire
