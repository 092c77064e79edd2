// Certificates are made here, by OpenSSL's own functions.

#include "server/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(std::FILE* file) const { std::fclose(file); }
};

class Tls : public testing::Test {
 protected:
  Tls() : folder_(std::filesystem::temp_directory_path() / absl::StrCat("tls_test.", getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~Tls() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ / name; }

  // A self-signed certificate and its key: NAME.pem and NAME.key.
  void MakeCertificate(const std::string& name) {
    const std::unique_ptr<EVP_PKEY, Free> key(EVP_EC_gen("P-256"));
    const std::unique_ptr<X509, Free> certificate(X509_new());
    ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
    X509_set_pubkey(certificate.get(), key.get());
    X509_NAME* subject = X509_get_subject_name(certificate.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const uint8_t*>("localhost"), -1, -1, 0);
    X509_set_issuer_name(certificate.get(), subject);
    ASSERT_GT(X509_sign(certificate.get(), key.get(), EVP_sha256()), 0);
    const std::unique_ptr<std::FILE, Free> cert_file(std::fopen(Path(name + ".pem").c_str(), "w"));
    const std::unique_ptr<std::FILE, Free> key_file(std::fopen(Path(name + ".key").c_str(), "w"));
    ASSERT_EQ(PEM_write_X509(cert_file.get(), certificate.get()), 1);
    ASSERT_EQ(PEM_write_PrivateKey(key_file.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr), 1);
  }

  std::filesystem::path folder_;
};

TEST_F(Tls, TakesACertificateWithItsKeyAndAnAuthorityForClients) {
  MakeCertificate("a");
  EXPECT_TRUE(TlsCredentials({Path("a.pem"), Path("a.key"), ""}).ok());
  EXPECT_TRUE(TlsCredentials({Path("a.pem"), Path("a.key"), Path("a.pem")}).ok());
}

TEST_F(Tls, NamesTheFlagAndTheFileThatWillNotDo) {
  MakeCertificate("a");
  MakeCertificate("b");
  std::ofstream(Path("empty.pem")).close();
  const struct {
    TlsFiles files;
    const char* flag;
    const char* why;
  } cases[] = {
      {{Path("none.pem"), Path("a.key"), ""}, "--tls-cert", "No such file"},
      {{Path("a.pem"), Path("none.key"), ""}, "--tls-key", "No such file"},
      {{Path("a.key"), Path("a.key"), ""}, "--tls-cert", "holds no certificate"},
      {{Path("a.pem"), Path("a.pem"), ""}, "--tls-key", "holds no private key"},
      {{Path("a.pem"), Path("b.key"), ""}, "--tls-key", "is not the key of --tls-cert"},
      {{Path("a.pem"), Path("a.key"), Path("empty.pem")}, "--tls-client-ca", "holds no certificate"},
  };
  for (const auto& c : cases) {
    const auto credentials = TlsCredentials(c.files);
    ASSERT_FALSE(credentials.ok()) << c.flag << " " << c.why;
    EXPECT_THAT(std::string(credentials.status().message()), AllOf(HasSubstr(c.flag), HasSubstr(c.why)));
  }
}

}  // namespace
}  // namespace quire
