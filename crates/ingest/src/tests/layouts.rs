//! Radiology collections, laid out as they are published.

use std::fs;
use std::io::Write as _;

use diptych_core::{AttributeValue, Chunking};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{folder, keys, read, shared};
use crate::openi::Report;
use crate::{Layout, Source};

fn text(text: &str) -> AttributeValue {
    AttributeValue::String(text.to_owned())
}

fn list(values: &[&str]) -> AttributeValue {
    AttributeValue::List(values.iter().map(|&v| v.to_owned()).collect())
}

#[test]
fn mimic_cxr_is_read_with_reports_and_tables() {
    let dir = folder(&[
        ("files/p10/p10000032/s50414267/bbb.jpg", ""),
        ("files/p10/p10000032/s50414267/aaa.jpg", ""),
        ("files/p10/p10000032/s50414267/index.html", ""),
        ("files/p10/p10000032/s53189527/ccc.jpg", ""),
        ("files/p11/p11000011/s51029426.txt", "FINDINGS: Report without images."),
        ("files/p11/p11000011/s51029999/notes.html", ""),
        ("mimic-cxr-reports/files/p10/p10000032/s50414267.txt", "\n FINAL REPORT\n FINDINGS: Clear.\n"),
        (
            "mimic-cxr-2.0.0-metadata.csv",
            "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime\n\
             aaa,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531\n\
             bbb,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,93014.5\n",
        ),
        ("mimic-cxr-2.0.0-split.csv", "dicom_id,study_id,subject_id,split\naaa,50414267,10000032,train\n"),
    ]);
    let labels =
        "subject_id,study_id,Edema,No Finding,Pleural Effusion,Pneumonia\n10000032,50414267,1.0,,-1.0,0.0\n";
    let mut encoder = GzEncoder::new(
        fs::File::create(dir.path().join("mimic-cxr-2.0.0-chexpert.csv.gz")).unwrap(),
        Compression::fast(),
    );
    encoder.write_all(labels.as_bytes()).unwrap();
    encoder.finish().unwrap();

    let source = Source::open(dir.path()).unwrap();
    assert_eq!(source.layout(), Layout::MimicCxr, "{}", source.why());
    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["s50414267", "s53189527", "s51029426"]);
    let study = &items[0];
    let names: Vec<_> =
        study.image_files().unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["aaa.jpg", "bbb.jpg"]);
    assert_eq!(study.texts.len(), 1);
    assert!(study.texts[0].contains("Clear."), "{}", study.texts[0]);
    assert_eq!(study.chunking, Chunking::Sentences);
    for (name, value) in [
        ("patient_id", text("10000032")),
        ("study_date", AttributeValue::Time("2180-05-06T09:30:14.5Z".parse().unwrap())),
        ("views", list(&["PA", "LATERAL"])),
        ("split", text("train")),
        ("procedure", text("CHEST (PA AND LAT)")),
        ("body_part", text("chest")),
        ("chexpert.edema", text("present")),
        ("chexpert.pleural_effusion", text("uncertain")),
        ("chexpert.pneumonia", text("absent")),
    ] {
        assert_eq!(study.attributes.get(name), Some(&value), "{name}");
    }
    assert!(!study.attributes.contains_key("chexpert.no_finding"), "blank is not absent");
    assert_eq!((items[1].images.len(), items[1].texts.len()), (1, 0));
    assert_eq!((items[2].images.len(), items[2].texts.len()), (0, 1));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("s51029999: neither image nor report"), "{}", errors[0]);

    fs::write(dir.path().join("mimic-cxr-2.0.0-negbio.csv"), "study_id,Edema\n50414267,2.0\n").unwrap();
    let error = Source::open(dir.path()).unwrap().items().unwrap_err().to_string();
    assert!(error.contains("negbio.csv: line 2: a label is none of 1, 0, -1"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_in_mimic_cxr_are_not_followed() {
    let outside = folder(&[("secret.jpg", ""), ("s50000001/secret.jpg", "")]);
    let dir =
        folder(&[("files/p10/p10000032/s50414267/aaa.jpg", ""), ("files/p10/p10000033/s50414268/a.jpg", "")]);
    let patient = dir.path().join("files/p10/p10000032");
    std::os::unix::fs::symlink(outside.path().join("secret.jpg"), patient.join("s50414267/zzz.jpg")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("s50000001"), patient.join("s50000001")).unwrap();
    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["s50414268"]);
    assert!(errors[0].reason.contains("zzz.jpg is not a regular file"), "{}", errors[0]);
}

const REPORT: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR1"/>
<MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="FINDINGS">The heart is &lt; 15 cm &amp; normal.<![CDATA[ Clear.]]></AbstractText>
<AbstractText Label="IMPRESSION">Normal&#32;chest.</AbstractText>
</Abstract></Article></MedlineCitation>
<MeSH><major>normal</major><automatic>heart</automatic><automatic>lung</automatic></MeSH>
<parentImage id="CXR1_1_IM-0001-3001"><figureId>F1</figureId></parentImage>
<parentImage id="CXR1_1_IM-0001-4001"/></eCitation>"#;

#[test]
fn openi_is_read_as_it_is_published() {
    let dir = folder(&[
        ("ecgen-radiology/10.xml", &REPORT.replace("CXR1", "CXR10")),
        ("ecgen-radiology/1.xml", REPORT),
        ("ecgen-radiology/2.xml", &REPORT.replace("CXR1", "CXR2").replace("</eCitation>", "")),
        ("NLMCXR_png/CXR1_1_IM-0001-3001.png", ""),
        ("NLMCXR_png/CXR1_1_IM-0001-4001.png", ""),
        ("NLMCXR_png/CXR2_1_IM-0001-3001.png", ""),
    ]);
    assert_eq!(Source::open(dir.path()).unwrap().layout(), Layout::OpenI);
    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["CXR1"]);
    assert_eq!(items[0].images.len(), 2);
    assert!(items[0].texts[0].contains("The heart is < 15 cm & normal. Clear."), "{}", items[0].texts[0]);
    assert!(items[0].texts[0].ends_with("IMPRESSION: Normal chest."), "{}", items[0].texts[0]);
    assert_eq!(items[0].attributes["mesh.major"], list(&["normal"]));
    assert_eq!(items[0].attributes["mesh.automatic"], list(&["heart", "lung"]));
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(messages[0].contains("2.xml: ends within an element"), "{messages:?}");
    assert!(messages[1].contains("10.xml: its image CXR10_1_IM-0001-3001.png is not in"), "{messages:?}");
    // Without any image, the reports alone.
    fs::remove_dir_all(dir.path().join("NLMCXR_png")).unwrap();
    assert_eq!(keys(&read(dir.path()).0), ["CXR1", "CXR10"]);
}

#[test]
fn xml_bombs_are_refused() {
    let billion = r#"<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>"#;
    assert!(Report::parse(billion).unwrap_err().contains("defines entities"));
    let file = r#"<!DOCTYPE x SYSTEM "file:///etc/passwd"><x><AbstractText>&x;</AbstractText></x>"#;
    assert!(Report::parse(file).unwrap_err().contains("an entity of its own"));
    let deep = "<a>".repeat(10_000);
    assert!(Report::parse(&deep).unwrap_err().contains("more than 64 elements"));
    let attribute = format!("<AbstractText Label=\"{}\">x</AbstractText>", "y".repeat(900_000));
    assert!(Report::parse(&attribute).is_ok(), "bounded by the size of the file");
    let entity = "<AbstractText Label=\"&own;\">x</AbstractText>";
    assert!(Report::parse(entity).unwrap_err().contains("an attribute with an entity"));
    let dir = folder(&[("a.xml", REPORT)]);
    fs::write(dir.path().join("b.xml"), " ".repeat((1 << 20) + 1)).unwrap();
    fs::write(dir.path().join("c.xml"), REPORT.replace("id=\"CXR1_1_IM-0001-3001\"", "id=\"../../x\""))
        .unwrap();
    fs::write(dir.path().join("x.png"), "").unwrap();
    let (_, errors) = read(dir.path());
    assert!(errors.iter().any(|e| e.reason.contains("more than 1048576")), "{errors:?}");
    assert!(errors.iter().any(|e| e.reason.contains("no plain name")), "{errors:?}");
}

#[test]
fn the_indiana_tables_are_read_together() {
    let dir = folder(&[
        (
            "indiana_reports.csv",
            "uid,MeSH,Problems,image,indication,comparison,findings,impression\n\
             2,Cardiomegaly/borderline;Pulmonary Artery/enlarged,Cardiomegaly,\"Chest, 2 views\",Preop.,,Clear lungs.,Normal.\n\
             3,normal,normal,x,,,,\n\
             4,normal,normal,x,Pain.,None.,,Fine.\n",
        ),
        (
            "indiana_projections.csv",
            "uid,filename,projection\n2,2_IM-1.dcm.png,Frontal\n2,2_IM-2.dcm.png,Lateral\n4,gone.png,Frontal\n",
        ),
        ("images/images_normalized/2_IM-1.dcm.png", ""),
        ("images/images_normalized/2_IM-2.dcm.png", ""),
    ]);
    assert_eq!(Source::open(dir.path()).unwrap().layout(), Layout::OpenICsv);
    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["2"]);
    assert_eq!(items[0].images.len(), 2);
    assert!(items[0].texts[0].contains("FINDINGS: Clear lungs."), "{}", items[0].texts[0]);
    assert_eq!(items[0].attributes["views"], list(&["FRONTAL", "LATERAL"]));
    assert_eq!(items[0].attributes["mesh"], list(&["Cardiomegaly/borderline", "Pulmonary Artery/enlarged"]));
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(messages[0].contains("line 3: neither image nor report"), "{messages:?}");
    assert!(messages[1].contains("line 4: image 'gone.png' cannot be read"), "{messages:?}");
}

#[test]
fn the_real_indiana_samples_are_read() {
    let Some(path) = shared("iu-xray-reports") else { return };
    let source = Source::open(&path).unwrap();
    assert_eq!(source.layout(), Layout::OpenICsv);
    let (items, errors) = read(&path);
    assert_eq!(items.len() + errors.len(), 300);
    assert!(items.len() > 290, "{errors:?}");
    assert!(items.iter().all(|item| item.attributes.contains_key("mesh") && item.texts.len() == 1));
}

#[test]
fn roco_is_read_in_all_its_forms() {
    let dir = folder(&[
        (
            "train_captions.csv",
            "ID,Caption\nROCOv2_2023_train_000001,\"Chest, frontal.\"\nROCOv2_2023_train_000002,Gone.\n",
        ),
        ("train_concepts.csv", "ID,CUIs\nROCOv2_2023_train_000001,C0040405;C0817096\n"),
        ("train/ROCOv2_2023_train_000001.jpg", ""),
        ("test_captions.csv", "ID,Caption\nROCOv2_2023_test_000001,A test.\n"),
        ("test/ROCOv2_2023_test_000001.jpg", ""),
    ]);
    assert_eq!(Source::open(dir.path()).unwrap().layout(), Layout::Roco);
    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["ROCOv2_2023_test_000001", "ROCOv2_2023_train_000001"]);
    assert_eq!(items[1].attributes["cuis"], list(&["C0040405", "C0817096"]));
    assert_eq!(items[1].attributes["split"], text("train"));
    assert_eq!(items[1].texts, ["Chest, frontal."]);
    assert!(
        errors[0].to_string().contains("line 3: its image ROCOv2_2023_train_000002.jpg is not there"),
        "{errors:?}"
    );

    let dir = folder(&[
        ("train/radiology/captions.txt", "ROCO_00002\t Tomography.\nROCO_00003 no tab\nROCO_../x\tup\n"),
        ("train/radiology/images/ROCO_00002.jpg", ""),
        ("validation/radiologyvaldata.csv", "id,name,caption\nROCO_1,PMC1.jpg, Xray \n"),
        ("validation/radiology/images/PMC1.jpg", ""),
    ]);
    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["ROCO_00002", "ROCO_1"]);
    assert_eq!(
        (&items[0].texts[..], &items[1].texts[..]),
        (&["Tomography.".to_owned()][..], &["Xray".to_owned()][..])
    );
    assert_eq!(items[1].attributes["split"], text("validation"));
    assert_eq!(items[1].attributes["figure"], text("PMC1.jpg"));
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(messages[0].contains("captions.txt line 2: no tab"), "{messages:?}");
    assert!(messages[1].contains("no plain name"), "{messages:?}");
}

#[test]
fn folders_of_vectors_are_told_from_folders_of_images() {
    let dir = folder(&[("img_emb/img_emb_0.npy", ""), ("metadata/metadata_0.parquet", "")]);
    let source = Source::open(dir.path()).unwrap();
    assert_eq!(source.layout(), Layout::ClipRetrieval);
    assert!(source.items().unwrap_err().to_string().contains("diptych import"));
}

#[test]
fn a_layout_can_be_asked_for_by_every_name_and_only_those() {
    for layout in Layout::ALL {
        assert_eq!(layout.as_str().parse::<Layout>(), Ok(layout));
    }
    assert!("zip".parse::<Layout>().unwrap_err().contains("mimic-cxr"));
    let dir = folder(&[("cases.jsonl", r#"{"text":"t"}"#), ("a.png", "")]);
    let options = crate::SourceOptions { layout: Some(Layout::Folder), ..Default::default() };
    assert_eq!(keys(&super::read_with(dir.path(), &options).0), ["a"]);
    for layout in [Layout::Csv, Layout::Parquet, Layout::WebDataset, Layout::OpenICsv, Layout::Roco] {
        let options = crate::SourceOptions { layout: Some(layout), ..Default::default() };
        assert!(Source::open_with(dir.path(), &options).is_err(), "{layout}");
    }
}
